# The conversations of tests/conversations hold for Xen's daemon in OCaml, but where they say not.
# lab: --store ocaml --timeout 900
. /lab/lib.sh

converse "ocaml-$XEN" /lab/conversations/*.txt || fail "not all was said as it is written"
