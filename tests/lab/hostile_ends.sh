# A guest that goes in the middle of whatever it does leaves nothing behind, whichever way it goes.
# lab: --store stubdom --memory 8 --maxmem 16 --timeout 1800
. /lab/lib.sh
. /lab/remains.sh

expect "xl create" xl create -q /etc/xen/guest.cfg 'name="polite"'
polite=$(domid polite)
eventually 60 xenstore-exists "/local/domain/$polite/data/hello"
remember

# over NAME: the domain has ended, by a crash or by itself.
over() {
    case $(state "$1") in
    "" | ????c? | ???s??) ;;
    *) return 1 ;;
    esac
}

# ends ACT END: a guest does this until it goes that way.
ends() {
    local id
    say "$1, then $2"
    expect "xl create" xl create -q /etc/xen/guest.cfg 'name="hostile"' "extra=\"$1 then=$2\""
    id=$(domid hostile)
    eventually 60 over hostile
    expect "as it was asked to" printed "$id" "guest: ends as asked"
    # What has crashed stays until then.
    xl destroy hostile 2>/dev/null || true
    nothing_left hostile "$id"
}

# A guest that crashes stays, its ring mapped, until it is destroyed; one that ends by itself xl
# destroys. The other scripts destroy theirs while they run.
for act in nonsense deep abandon replay quotas "deaf=data" storm flood flip reconnect half=16; do
    ends "$act" crash
    ends "$act" poweroff
done

say "dom0 and the others are served as ever"
expect "it obeys xl shutdown" xl shutdown -w polite
eventually 60 gone polite "$polite"
