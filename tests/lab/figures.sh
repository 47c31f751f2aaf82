# What the host's Xenstore costs, as guests and dom0 see it, in lines `measure NAME VALUE UNIT`.
#
# `cargo xtask bench lab` runs it with each server in turn, on the same host otherwise. Time passes
# with instructions there, two nanoseconds each, those of the scheduler and the hypervisor included.
. /lab/lib.sh
. /lab/meter.sh

say "one guest, and nobody else"
meter one
echo_for one

COUNT=2000
for line in store echo; do
    for op in read write; do
        order one trips "$op" "$line" "$COUNT"
        measure_trips "trip-$op-$line"
        order one stream "$op" "$line" "$COUNT"
        measure "stream-$op-$line" $((COUNT * 1000000000 / $(result))) /s
    done
done
