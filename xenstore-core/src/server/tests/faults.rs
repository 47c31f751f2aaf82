//! The server's own check.

use super::*;
use crate::domain::Domain;

/// A check that finds nothing wrong proves something only if it would find what is.
#[test]
fn the_check_finds_each_fault() {
    fn guest(server: &mut Server) -> &mut Domain {
        server.store.domains.find_mut(DomId(1)).expect("a guest")
    }
    fn watches(server: &mut Server) -> &mut Vec<crate::watch::WatchId> {
        let conn = guest(server).conn.expect("it is connected");
        &mut server.audience.connections.find_mut(conn).expect("its connection").watches
    }
    type Fault = fn(&mut Server);
    let faults: [(&str, Fault); 9] = [
        ("1 nodes, charged 2", |server| guest(server).usage.nodes += 1),
        ("bytes, charged", |server| guest(server).usage.memory += 1),
        ("1 watches, charged 2", |server| guest(server).usage.watches += 1),
        ("0 transactions, charged 1", |server| guest(server).usage.transactions += 1),
        ("owns /local/domain/1/data, which the index has not", |server| {
            guest(server).roots.clear();
        }),
        ("which is not its", |server| guest(server).conn = None),
        ("belongs to a dead domain", |server| drop(server.store.domains.remove(DomId(1)))),
        ("watch 0 of", |server| {
            let id = watches(server)[0];
            server.audience.watches.remove(id);
        }),
        ("connections list 0 watches, 1 exist", |server| {
            watches(server).clear();
            let usage = &mut guest(server).usage;
            (usage.watches, usage.memory) = (0, usage.memory - "/local/domain/1/data".len() - 1);
        }),
    ];
    for (told, fault) in faults {
        let mut lab = Lab::new(&[1]);
        lab.ok(1, Op::Watch, 0, "data|t|");
        fault(&mut lab.server);
        let difference = lab.server.check().expect_err(told);
        assert!(difference.contains(told), "expected {told:?}, got {difference:?}");
        let request = Lab::frame(Op::Control, 0, b"check\0");
        let taken = lab.server.receive(lab.clients[&0], &request, &mut lab.host);
        assert_eq!(taken, Ok(request.len()));
        assert_eq!(lab.read(0), ["OK|"], "the tool is told on the console");
        assert_eq!(lab.host.log.last(), Some(&format!("print {difference}")));
    }
}
