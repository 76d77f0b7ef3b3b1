# Verifies the messages of a directory with opendkim-testmsg, in a network and a view of /etc that are its own: run by unshare.
set -eu
ip link set lo up
mount --bind "$1/resolv.conf" /etc/resolv.conf
unbound -c "$1/unbound.conf" 2>"$1/unbound.log" &
unbound=$!
while [ ! -s "$1/pid" ]; do # it is written when the port is open
	kill -0 $unbound
	sleep 0.1
done
cd "$1"
for f in *.eml; do
	status=0
	why=$(opendkim-testmsg <"$f" 2>&1) || status=$?
	echo "$f $status $(echo "$why" | tr '\n' ' ')"
done
kill $unbound
