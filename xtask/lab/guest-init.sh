#!/bin/busybox sh
# The init of the stock Linux guest. Xenstore is its line to dom0: what dom0 writes to data/run
# ("NUMBER COMMAND...") it runs in a shell, and answers in data/output (the first 2,000 characters)
# and data/result ("NUMBER STATUS"). A program takes long to start here, so it starts few.

/bin/busybox --install -s /bin 2>/dev/null
export PATH=/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
hostname guest
while read -r module; do
    insmod "/lib/modules/$module.ko"
done </lib/modules/order
echo "guest: $(uname -r) is up"

run() {
    asked=$(xenstore-read data/run 2>/dev/null) || return 0
    number=${asked%% *}
    [ "$number" != "$last" ] || return 0
    last=$number
    output=$( (eval "${asked#* }") 2>&1 </dev/null)
    status=$?
    echo "guest: ${asked#* }: status $status"
    xenstore-write data/output "${output:0:2000}" data/result "$number $status"
}

setsid sh -c 'while true; do sh </dev/hvc0 >/dev/hvc0 2>&1; sleep 1; done' &

last=
xenstore-write data/ready 1
# The first event comes at once, so nothing that was asked before is missed.
xenstore-watch data/run | while read -r _; do
    run
done
echo "guest: the watch ended"
sleep 5
poweroff -f
