# A command line or a memory that the image cannot run with is named.
# lab: --store stubdom --memory 8 --maxmem 16 --no-linux --timeout 900
# xen: 4.17 4.20
. /lab/lib.sh

# stops NAME TEXT SETTING...: a domain with these settings says that and ends.
stops() {
    local name=$1 text=$2
    shift 2
    expect "xl create $name" xl create -q /etc/xen/stubdom.cfg "name=\"$name\"" "$@"
    id=$(domid "$name")
    eventually 60 crashed "$name"
    expect "$name: says why" printed "$id" "$text"
    expect "$name: goes" xl destroy "$name"
}

say "images that cannot run"
stops little-memory "too few" "memory=3" "maxmem=3"
stops bad-events 'events wants fifo or 2l, not "3l"' 'extra="events=3l"'
stops not-text 'not text: caf\xe9' "extra=\"$(printf 'caf\351')\""
stops no-event "event wants a port number, and nothing follows it" 'extra="--event"'
stops far-gateway "gw wants another address of the network of ip=" 'extra="ip=10.9.0.2/24 gw=10.8.0.1"'
