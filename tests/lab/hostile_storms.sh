# A guest that wears the store out by its ring and its events keeps nobody waiting.
# lab: --store stubdom --memory 8 --maxmem 16 --timeout 1800
. /lab/lib.sh
. /lab/remains.sh
. /lab/beside.sh

beside storm
beside flood
beside flip
beside reconnect
