#!/bin/sh
# What xl runs for a guest's network interface in dom0: puts it on the lab's bridge.
case $1 in
online)
    ip link set "$vif" up
    brctl addif "${bridge:-br0}" "$vif"
    xenstore-write "$XENBUS_PATH/hotplug-status" connected
    ;;
offline)
    brctl delif "${bridge:-br0}" "$vif"
    xenstore-rm "$XENBUS_PATH/hotplug-status"
    ;;
esac
