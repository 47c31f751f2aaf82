#!/bin/busybox sh
# The init of the lab's dom0: makes a Xen host of it, starts the chosen Xenstore, runs
# /lab/script, and says how that ended on the second serial port, which is the script's alone.

/bin/busybox --install -s /bin 2>/dev/null
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
hostname dom0

while read -r module; do
    insmod "/lib/modules/$module.ko" || echo "cannot load $module"
done </lib/modules/order
mount -t xenfs xenfs /proc/xen

. /lab/config
. /lab/host.sh
exec 3>/dev/ttyS1
stty -F /dev/ttyS1 -opost

diagnose() {
    echo "-- what the host looked like then"
    timeout 10 xl list
    for log in /var/log/xen/*.log /var/log/xen/console/guest-*.log; do
        [ -s "$log" ] || continue
        echo "-- $log"
        grep "BUG: " "$log" | head -n 3
        tail -n 30 "$log"
    done
}

{
    if start_store "$STORE" && start_tools; then
        cd /root
        busybox sh /lab/script </dev/null
        status=$?
    else
        echo "the $STORE Xenstore did not come up"
        status=70
    fi
    [ "$status" -eq 0 ] || diagnose </dev/null
    # On a line of its own, whatever came before it.
    echo
    echo "lab $TOKEN exit $status"
} >&3 2>&1

if [ -n "$SHELL_AFTER" ]; then
    setsid sh -c 'exec busybox sh -l </dev/hvc0 >/dev/hvc0 2>&1'
else
    sleep 60
fi
poweroff -f
