# What a Xen host starts at boot, for dom0's init and for scripts that start it themselves.
# To be read by a POSIX shell.

PATH=/usr/sbin:/usr/bin:/sbin:/bin
for folder in /usr/lib/xen-*/bin; do
    PATH=$folder:$PATH
done
export PATH
export XENSTORED_ROOTDIR=/run/xenstored

# start_store stubdom|c|ocaml|none: starts it and waits until it answers.
start_store() {
    case $1 in
    stubdom)
        set -- --kernel /boot/stubdom --memory "$MEMORY"
        [ -z "$MAXMEM" ] || set -- "$@" --maxmem "$MAXMEM"
        [ -z "$PARAM" ] || set -- "$@" --param "$PARAM"
        timeout 60 init-xenstore-domain "$@" || return 1
        ;;
    c) xenstored --pid-file /run/xen/xenstored.pid || return 1 ;;
    ocaml) oxenstored --pid-file /run/xen/xenstored.pid || return 1 ;;
    none) return 0 ;;
    *) return 1 ;;
    esac
    tries=30
    until timeout 10 xenstore-exists / 2>/dev/null; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.5
    done
}

# start_tools: what follows the store at boot. Without a store it does nothing.
start_tools() {
    [ "$STORE" != none ] || return 0
    timeout 60 xen-init-dom0 >/dev/null &&
        xenconsoled --log=all --pid-file=/run/xen/xenconsoled.pid
}
