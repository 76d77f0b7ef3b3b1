package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// enclave is a mount namespace of its own: what is mounted in it nobody else sees, and it is gone when the harness
// is. A process that only waits keeps it alive.
type enclave struct {
	holder *exec.Cmd
	stdin  io.WriteCloser
}

// newEnclave makes a namespace, or says why that cannot be.
func newEnclave() (*enclave, error) {
	if os.Getuid() != 0 {
		return nil, Skip("it mounts a file system, and that needs root")
	}
	for _, tool := range []string{"unshare", "nsenter", "mount", "umount", "mkfs.ext4"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, Skip("it mounts a file system, and %s is not installed (util-linux, e2fsprogs)", tool)
		}
	}
	e := &enclave{holder: exec.Command("unshare", "--mount", "--propagation", "private", "cat")}
	var err error
	if e.stdin, err = e.holder.StdinPipe(); err != nil {
		return nil, fmt.Errorf("make mount namespace: %w", err)
	}
	out, err := e.holder.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("make mount namespace: %w", err)
	}
	if err := e.holder.Start(); err != nil {
		return nil, Skip("no mount namespace can be made here: %v", err)
	}
	// An echo says that the namespace is there.
	_, err = io.WriteString(e.stdin, "\n")
	if err == nil {
		_, err = out.Read(make([]byte, 1))
	}
	if err != nil {
		return nil, errors.Join(Skip("no mount namespace can be made here: %v", err), e.close())
	}
	return e, nil
}

func (e *enclave) close() error {
	err := e.stdin.Close()
	if ended := e.holder.Wait(); err == nil && ended != nil && !errors.As(ended, new(*exec.ExitError)) {
		err = ended
	}
	return err
}

// prefix makes a command run in the enclave; the process that is started becomes that command.
func (e *enclave) prefix() []string {
	return []string{"nsenter", "--target", strconv.Itoa(e.holder.Process.Pid), "--mount", "--"}
}

// seen returns a path of the enclave as everybody can open it.
func (e *enclave) seen(path string) string {
	return filepath.Join("/proc", strconv.Itoa(e.holder.Process.Pid), "root", path)
}

// run runs a command in the enclave.
func (e *enclave) run(ctx context.Context, args ...string) error {
	args = append(e.prefix(), args...)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args[5:], " "), err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

// disk is an ext4 file system in a file, mounted in an enclave.
type disk struct {
	*enclave
	image string
	point string
}

// newDisk makes and mounts a file system of so many MiB. inodes is how many files it can have; 0: as usual.
func newDisk(ctx context.Context, dir string, size, inodes int) (*disk, error) {
	e, err := newEnclave()
	if err != nil {
		return nil, err
	}
	d := &disk{enclave: e, image: filepath.Join(dir, "disk.img"), point: filepath.Join(dir, "disk")}
	if err := d.make(ctx, size, inodes); err != nil {
		return nil, errors.Join(err, e.close())
	}
	return d, nil
}

func (d *disk) make(ctx context.Context, size, inodes int) error {
	f, err := os.Create(d.image)
	if err != nil {
		return fmt.Errorf("make image: %w", err)
	}
	err = errors.Join(f.Truncate(int64(size)<<20), f.Close(), os.Mkdir(d.point, 0o700))
	if err != nil {
		return fmt.Errorf("make image: %w", err)
	}
	args := []string{"mkfs.ext4", "-q", "-F", "-m", "0"}
	if inodes > 0 {
		args = append(args, "-N", strconv.Itoa(inodes))
	}
	if err := d.run(ctx, append(args, d.image)...); err != nil {
		return err
	}
	if err := d.mount(ctx); err != nil {
		return Skip("no image can be mounted here: %v", err)
	}
	return nil
}

func (d *disk) mount(ctx context.Context) error {
	return d.run(ctx, "mount", "-o", "loop", d.image, d.point)
}

// umount may have to wait for the last file that a process had open.
func (d *disk) umount(ctx context.Context) error {
	var err error
	for range 100 {
		if err = d.run(ctx, "umount", d.point); err == nil {
			return nil
		}
		if !pause(ctx, 20*time.Millisecond) {
			break
		}
	}
	return err
}

// data returns a directory on the disk, as the server sees it and as everybody sees it.
func (d *disk) data() (inside, outside string) {
	inside = filepath.Join(d.point, "data")
	return inside, d.seen(inside)
}
