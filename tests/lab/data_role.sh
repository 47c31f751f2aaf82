# In its other role the image is a domain among others, under the C xenstored.
# lab: --store c --no-linux --timeout 400
# xen: 4.17 4.20
. /lab/lib.sh

expect "xl creates it" xl create -q /etc/xen/stubdom.cfg
id=$(domid stubdom)
data=/local/domain/$id/data
eventually 60 xenstore-exists "$data/uptime"
xenstore-ls "$data"
equal "it says what it is" data xenstore-read "$data/role"
expect "and its version" sh -c "xenstore-read $data/version | grep -x '[0-9]*[.][0-9]*[.][0-9]*'"
expect "and under which Xen" sh -c "xenstore-read $data/xen | grep '^4[.]'"
first=$(xenstore-read "$data/uptime")
later() {
    [ "$(xenstore-read "$data/uptime")" -gt "$first" ]
}
eventually 60 later

say "it has channels for dom0"
expect "announce" datafront announce stubdom
refuse "who is not allowed is told so" "refuses the channel" datafront ping
xenstore-write "$data/policy/wrong" "allow * ping"
eventually 20 xenstore-exists "$data/policy-error"
expect "what is wrong in the policy is told with its line" \
    sh -c "xenstore-read $data/policy-error | grep 'policy/wrong:1: '"
xenstore-rm "$data/policy/wrong"
xenstore-write "$data/policy/all" "allow dom0 push *"
eventually 20 datafront ping
nothing_left() {
    [ -z "$(xenstore-list "$data/ask")$(xenstore-list "$data/vchan")" ]
}
eventually 20 nothing_left

expect "it obeys xl shutdown" xl shutdown -w stubdom
eventually 60 gone stubdom "$id"
