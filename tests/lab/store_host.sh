# Debian's own init script brings up a host whose Xenstore is the stub.
# lab: --store none --no-linux --timeout 400
# xen: 4.17 4.20
. /lab/lib.sh

mkdir -p /etc/default /usr/local/sbin
cp /etc/xen/store-host.default /etc/default/xen
cp /etc/xen/store-host.xenstored /usr/local/sbin/xenstored-domain

expect "/etc/init.d/xen start" /etc/init.d/xen start
expect "the store is a domain" listed Xenstore
equal "dom0 has its name" Domain-0 xenstore-read /local/domain/0/name
equal "no xenstored runs in dom0" "" pidof xenstored oxenstored
expect "xenconsoled runs" pidof xenconsoled

expect "a guest is created" xl create -q /etc/xen/guest.cfg
id=$(domid guest)
eventually 60 xenstore-exists "/local/domain/$id/data/hello"
eventually 60 grep -q "guest: hello" /var/log/xen/console/guest-guest.log
expect "and shut down" xl shutdown -w guest
eventually 60 gone guest "$id"

refuse "a second store is refused" "already present" /etc/init.d/xen start
equal "and the first one goes on" Domain-0 xenstore-read /local/domain/0/name
