# The same under oxenstored.
# lab: --store ocaml --no-linux --timeout 400
. /lab/data_role.sh
