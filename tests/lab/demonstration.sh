# What `cargo xtask run` shows.
# lab: --store stubdom --memory 8 --maxmem 16 --timeout 600
. /lab/lib.sh

show() {
    echo "   dom0 \$ $*"
    "$@" 2>&1 | sed 's/^/   /'
}

show_in_guest() {
    echo "   guest \$ $*"
    in_guest linux "$@" 2>&1 | sed -n 's/^./   &/p'
}

say "This is dom0 of a Xen host. No xenstored runs here: Xenstore is a domain of its own,"
echo "   the image stubdom, which Xen's own init-xenstore-domain started."
show xl list
show xenstore-ls -f /tool

say "A stock Debian Linux becomes a guest; xl writes its nodes into the store."
show xl create /etc/xen/linux.cfg
echo "   It boots, on an emulated processor in an emulated processor: some 20 s."
guest=$(domid linux)
ready 300 linux
show xl list

say "What the store holds for it:"
show xenstore-ls "/local/domain/$guest"

say "The guest writes below its own data node, and dom0 reads it:"
show_in_guest xenstore-write data/greeting "hello from Linux $(uname -r)"
show xenstore-read "/local/domain/$guest/data/greeting"

say "dom0 writes there, and the guest reads it:"
show xenstore-write "/local/domain/$guest/data/answer" "hello from dom0"
show_in_guest xenstore-read data/answer

say "What belongs to others, the guest is refused:"
show_in_guest xenstore-ls /local/domain/0
show_in_guest xenstore-write /local/domain/0/name mine

if [ "$STORE" = stubdom ]; then
    say "What the store's domain said on its console:"
    store_console | sed 's/^/   /'
fi

if [ -n "$SHELL_AFTER" ]; then
    say "Now it is yours: dom0's prompt. The guest's own is behind \`xl console linux\` (Ctrl-] leaves it)."
    echo "   \`exit\` ends the host; Ctrl-A x ends QEMU."
else
    say "The guest is asked to go, and its nodes go with it."
    show xl shutdown -w linux
    # xl comes back when the guest is down; its clean-up follows.
    eventually 60 gone linux "$guest"
    show xl list
fi
