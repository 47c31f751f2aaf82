# The figures of both roles: as nodes, and to Prometheus over dom0's bridge.
# lab: --store stubdom --memory 8 --no-linux --prometheus --timeout 900
# xen: 4.17 4.20
. /lab/lib.sh

STORE_FIGURES=/tool/xenstored/figures

# word NAME NODE: prints the number that stands behind a word in a node's value.
word() {
    xenstore-read "$2" | tr ' ' '\n' | awk -v name="$1" 'found { print; exit } $0 == name { found = 1 }'
}

# grows COMMAND...: what the command prints is a number, and later a greater one.
grows() {
    local first later
    first=$("$@") && sleep 11 && later=$("$@") || return 1
    echo "$first, then $later"
    [ "$later" -gt "$first" ]
}

say "the store's figures"
expect "requests are counted by their type" grows word READ "$STORE_FIGURES/store_requests_total"
expect "and bytes" grows xenstore-read "$STORE_FIGURES/store_received_bytes_total"
before=$(word ENOENT "$STORE_FIGURES/store_errors_total")
refuse "a node that is not there" "couldn't read" xenstore-read /nowhere
sleep 11
xenstore-exists "$STORE_FIGURES"
equal "its error is counted" $((before + 1)) word ENOENT "$STORE_FIGURES/store_errors_total"
equal "it says who it is" "version 0.1.0 role store xen" sh -c \
    "xenstore-read $STORE_FIGURES/info | sed 's/ [^ ]*\$//'"
equal "nobody but dom0 has rights" "" sh -c "xenstore-ls -p $STORE_FIGURES | grep -v '  (n0)\$' || true"
expect "xenstore-control tells them, too" sh -c \
    "xenstore-control counters | grep -q '^store_transactions_ended_total: committed [0-9]* conflict '"

say "a data role with an uplink and an address"
ip link set lo up
brctl addbr br0
ip link set br0 up
ip addr add 10.9.0.1/24 dev br0
expect "xl creates it" xl create -q /etc/xen/stubdom.cfg \
    'extra="ip=10.9.0.2/24"' 'vif=["script=/lab/vif.sh,bridge=br0"]'
FIGURES=/local/domain/$(domid stubdom)/data/figures
fetch() {
    wget -q -O /tmp/page http://10.9.0.2/metrics
}
eventually 60 fetch
cat /tmp/page
expect "promtool finds nothing to complain of" sh -c "/lab/with/promtool check metrics </tmp/page"
frames() {
    ping -q -c 3 -i 0.2 10.9.0.2 >/dev/null
    word in "$FIGURES/switch_frames_total/uplink1"
}
eventually 30 xenstore-exists "$FIGURES/switch_frames_total/uplink1"
expect "frames are counted in its nodes" grows frames
equal "only the domain and dom0 have rights" "" sh -c \
    "xenstore-ls -p $FIGURES | grep -v '  (n$(domid stubdom)' || true"
# still: whether nothing is written for a while. dom0's kernel may still look for neighbours.
still() {
    local uptime
    uptime=$(xenstore-read "$FIGURES/uptime_seconds")
    sleep 25
    [ "$(xenstore-read "$FIGURES/uptime_seconds")" = "$uptime" ]
}
eventually 180 still

say "Prometheus"
cat >/tmp/prometheus.yml <<'END'
global: {scrape_interval: 5s, scrape_timeout: 5s}
scrape_configs:
  - job_name: stubdom
    static_configs: [{targets: ["10.9.0.2:80"]}]
END
expect "promtool takes its configuration" /lab/with/promtool check config /tmp/prometheus.yml
/lab/with/prometheus --config.file=/tmp/prometheus.yml --web.listen-address=127.0.0.1:9090 \
    --storage.tsdb.path=/tmp/prometheus --storage.tsdb.wal-segment-size=10MB \
    >/tmp/prometheus.log 2>&1 &

# queried QUERY: prints the value of the one series that Prometheus has for that.
queried() {
    wget -q -O /tmp/answer "http://127.0.0.1:9090/api/v1/query?query=$1" || return 1
    sed -n 's/.*"value":\[[0-9.]*,"\([0-9]*\)"\]}\]}}$/\1/p' /tmp/answer | grep .
}
up() {
    [ "$(queried 'up%7Bjob="stubdom",instance="10.9.0.2:80"%7D')" = 1 ]
}
until up; do
    sleep 2
    tries=$((${tries:-0} + 1))
    [ "$tries" -lt 60 ] || {
        cat /tmp/prometheus.log /tmp/answer
        fail "Prometheus does not say that the domain is up"
    }
done
echo "ok: Prometheus says that the domain is up"
expect "its counters of frames grow there" grows queried \
    'stubdom_switch_frames_total%7Bport="uplink1",direction="in"%7D'
expect "and those of bytes" grows queried \
    'stubdom_switch_bytes_total%7Bport="stack",direction="in"%7D'
