package smtp

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
)

const mib = 1 << 20

// counted checks what a budget says it holds.
func counted(t *testing.T, b *Budget, received, read int64, waiting int) {
	t.Helper()
	r, d, w := b.Usage()
	if r != received || d != read || w != waiting {
		t.Errorf("%d octets received, %d read back, %d wait; want %d, %d, %d", r, d, w, received, read, waiting)
	}
}

// TestBudgetReceiving: a body counts with its pieces until the last Release, and is over when they are too many.
func TestBudgetReceiving(t *testing.T) {
	t.Parallel()
	b := NewBudget(4 * largePiece)
	body := b.NewBody()
	body.Append(make([]byte, 1000))
	counted(t, b, smallPiece, 0, 0)
	body.Append(make([]byte, smallPiece))
	counted(t, b, smallPiece+largePiece, 0, 0)
	if body.Over() || body.Memory() != smallPiece+largePiece {
		t.Errorf("over %v, memory %d", body.Over(), body.Memory())
	}
	body.Retain()
	body.Release()
	counted(t, b, smallPiece+largePiece, 0, 0)
	other := b.NewBody()
	other.Append(make([]byte, smallPiece+largePiece+1)) // three quarters are 3 large pieces
	if body.Over() || !other.Over() {
		t.Errorf("over %v and %v, want the second", body.Over(), other.Over())
	}
	other.Release()
	body.Release()
	counted(t, b, 0, 0, 0)
}

// TestBudgetReserve: what is announced counts at once, and what did not come is given back.
func TestBudgetReserve(t *testing.T) {
	t.Parallel()
	b := NewBudget(8 * mib)
	body, late := b.NewBody(), b.NewBody()
	if !b.Room(5*mib) || !body.Reserve(5*mib) {
		t.Fatal("no room for 5 MiB of 6")
	}
	if b.Room(2*mib) || late.Reserve(2*mib) {
		t.Error("room for 7 MiB of 6")
	}
	body.Append(make([]byte, 10))
	counted(t, b, memoryOf(5*mib), 0, 0)
	body.Trim()
	counted(t, b, smallPiece, 0, 0)
	late.Release()
	body.Release()
	counted(t, b, 0, 0, 0)
	var none *Budget
	body = none.NewBody()
	if !none.Room(1<<60) || !body.Reserve(1<<60) {
		t.Error("no budget refuses")
	}
	body.Trim()
	body.Release()
}

// TestBudgetClaims: bodies read back wait in line; one large and one small always go; small ones pass large ones.
func TestBudgetClaims(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		b := NewBudget(32 * mib)
		first, err := b.Claim(ctx, 100*mib) // more than the whole
		if err != nil {
			t.Fatal(err)
		}
		var granted []string
		var mu sync.Mutex
		claim := func(name string, size int64) chan Claim {
			got := make(chan Claim, 1)
			go func() {
				c, err := b.Claim(ctx, size)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				granted = append(granted, name)
				mu.Unlock()
				got <- c
			}()
			synctest.Wait()
			return got
		}
		second, third := claim("second", 20*mib), claim("third", 3*mib)
		little, less := claim("little", 1000), claim("less", 1000)
		if len(granted) != 1 || granted[0] != "little" {
			t.Errorf("%v go while the budget is used up, want one little", granted)
		}
		if _, ok := b.TryClaim(mib); ok {
			t.Error("somebody overtook those who wait")
		}
		first.Release()
		synctest.Wait()
		if len(granted) != 4 {
			t.Errorf("%v went", granted)
		}
		for _, c := range []chan Claim{second, third, little, less} {
			(<-c).Release()
		}
		counted(t, b, 0, 0, 0)
	})
}

// TestBudgetLargeAmongSmall: a stream of small bodies does not keep a large one out.
func TestBudgetLargeAmongSmall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(8 * mib)
		hold, _ := b.TryClaim(4 * mib)
		var open []Claim
		for {
			c, ok := b.TryClaim(1000)
			if !ok {
				break
			}
			open = append(open, c)
		}
		got := make(chan Claim)
		go func() {
			c, _ := b.Claim(t.Context(), 4*mib)
			got <- c
		}()
		synctest.Wait()
		hold.Release()
		for i := 0; ; i++ { // each small one that ends is followed by another
			synctest.Wait()
			select {
			case c := <-got:
				c.Release()
			default:
				if i == 10*len(open) {
					t.Fatal("the large body waits for ever")
				}
				open[i%len(open)].Release()
				if c, ok := b.TryClaim(1000); ok {
					open[i%len(open)] = c
				} else {
					open[i%len(open)] = Claim{}
				}
				continue
			}
			break
		}
	})
}

// TestBudgetGivesUp: who no longer waits leaves nothing behind.
func TestBudgetGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(8 * mib)
		hold, _ := b.TryClaim(8 * mib)
		ctx, cancel := context.WithCancelCause(t.Context())
		failed := make(chan error)
		go func() {
			_, err := b.Claim(ctx, 4*mib)
			failed <- err
		}()
		synctest.Wait()
		counted(t, b, 0, memoryOf(8*mib), 1)
		why := errors.New("why")
		cancel(why)
		if err := <-failed; !errors.Is(err, why) {
			t.Error(err)
		}
		hold.Release()
		counted(t, b, 0, 0, 0)
	})
}

// TestBudgetMany: whatever many do at once, nothing stays counted and nobody waits for ever.
func TestBudgetMany(t *testing.T) {
	t.Parallel()
	b := NewBudget(4 * mib)
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(7, uint64(i)))
			for range 200 {
				size := r.Int64N(3 * mib)
				if r.IntN(2) == 0 {
					size %= smallBody
				}
				if r.IntN(2) == 0 {
					body := b.NewBody()
					if body.Reserve(size) {
						body.Append(make([]byte, 100))
						body.Trim()
					}
					body.Release()
					continue
				}
				c, err := b.Claim(t.Context(), size)
				if err != nil {
					t.Error(err)
					return
				}
				body := NewBody()
				c.Give(body)
				body.Release()
			}
		})
	}
	all.Wait()
	counted(t, b, 0, 0, 0)
}
