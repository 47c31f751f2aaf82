# A crash says where it happened and leaves the domain to be looked at.
# lab: --store c --no-linux --timeout 400
# xen: 4.17 4.20
. /lab/lib.sh

crash() {
    name=$1
    expect "xl create with $name" xl create -q /etc/xen/stubdom.cfg "name=\"$name\"" "extra=\"$name\""
    id=$(domid "$name")
    eventually 60 crashed "$name"
    sleep 3
    equal "it is not started again" "$id" domid "$name"
    expect "it stays crashed" crashed "$name"
    expect "it says that it is over" printed "$id" "FATAL: "
}

say "a panic"
crash test-panic
expect "it says where" printed "$id" "stubdom/src/main.rs:"
expect "and why" printed "$id" "asked to by the command line"
expect "and the way there" printed "$id" "calls: 0x"

say "a fault"
crash test-fault
expect "it names the fault" printed "$id" "(vector "
expect "the address" printed "$id" "at address 0x"
expect "the instruction" printed "$id" "rip 0x"
expect "and the way there" printed "$id" "calls: 0x"
xl dmesg | grep -F "(d$id) "
