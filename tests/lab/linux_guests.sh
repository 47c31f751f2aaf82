# Stock Linux guests, started at once, live with the store and leave nothing behind.
# lab: --store stubdom --memory 8 --maxmem 16 --param events=fifo --timeout 900
# xen: 4.17 4.20
. /lab/lib.sh

: "${GUESTS:=g1 g2 g3}"
before=$(xenstore-list /local/domain | sort -n | xargs)

say "xl create: $GUESTS"
creations=
for guest in $GUESTS; do
    xl create -q /etc/xen/linux.cfg "name=\"$guest\"" &
    creations="$creations $!"
done
for creation in $creations; do
    wait "$creation" || fail "xl create ended with status $?"
done
# shellcheck disable=SC2086
ready 400 $GUESTS

say "each has a node of its own"
for guest in $GUESTS; do
    id=$(domid "$guest")
    expect "$guest writes" in_guest "$guest" xenstore-write data/word "from $guest"
    equal "dom0 reads what $guest wrote" "from $guest" \
        xenstore-read "/local/domain/$id/data/word"
    equal "and knows $guest by name" "$guest" xenstore-read "/local/domain/$id/name"
    expect "dom0 writes" xenstore-write "/local/domain/$id/data/reply" "to $guest"
    equal "$guest reads it" "to $guest" in_guest "$guest" xenstore-read data/reply
    refuse "$guest may not write into dom0's home" "could not write" \
        in_guest "$guest" xenstore-write /local/domain/0/name mine
    refuse "nor look below another domain's private nodes" "Permission denied" \
        in_guest "$guest" xenstore-ls /local/domain/0/backend
    for other in $GUESTS; do
        [ "$other" != "$guest" ] || continue
        refuse "$guest may not read what is $other's" "Permission denied" \
            in_guest "$guest" xenstore-ls "/local/domain/$(domid "$other")/data"
    done
done

say "they go, one way or the other"
ids=
way="shutdown -w"
for guest in $GUESTS; do
    id=$(domid "$guest")
    # shellcheck disable=SC2086
    expect "xl $way $guest" xl $way "$guest"
    eventually 60 gone "$guest" "$id"
    ids="$ids $id"
    case $way in
    destroy) way="shutdown -w" ;;
    *) way=destroy ;;
    esac
done
equal "the store knows the domains from before" "$before" \
    sh -c 'xenstore-list /local/domain | sort -n | xargs'
for id in $ids; do
    equal "nothing is left of domain $id" 0 sh -c "xenstore-ls -f | grep -c '/$id\\([/ ]\\)'"
done
