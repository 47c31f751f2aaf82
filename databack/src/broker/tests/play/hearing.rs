//! What the honest fronts hear, and what must hold of it.

use databack::frame::{Call, Notice, Outcome};

use super::{Play, Receiving, content};

impl Play {
    /// Lets everybody hear and say what there is, until nothing is new.
    pub(super) fn settle(&mut self) {
        loop {
            self.world.run();
            let mut heard = false;
            for actor in 0..self.actors.len() {
                heard |= self.hear_all(actor);
            }
            if !heard {
                break;
            }
        }
        for actor in 0..self.actors.len() {
            let ended = self.world.fronts[self.actors[actor].front].ended;
            if self.actors[actor].domain > 4 {
                self.actors[actor].gone |= ended.is_some();
            } else {
                assert!(self.actors[actor].gone || ended.is_none(), "an honest front: {ended:?}");
            }
        }
    }

    fn hear_all(&mut self, actor: usize) -> bool {
        let front = self.actors[actor].front;
        if self.actors[actor].domain > 4 {
            self.world.fronts[front].inbox.clear();
            return false;
        }
        let mut inbox = core::mem::take(&mut self.world.fronts[front].inbox);
        let mut done = 0;
        while let Ok(Some(frame)) = databack::frame::decode::<Notice<'_>>(&inbox[done..]) {
            let end = done + frame.head + frame.payload as usize;
            let Some(payload) = inbox.get(done + frame.head..end) else { break };
            if !self.actors[actor].gone {
                self.hear(actor, frame.header, payload);
            }
            done = end;
        }
        inbox.drain(..done);
        self.world.fronts[front].inbox = inbox;
        self.send_more(actor) || done > 0
    }

    fn hear(&mut self, actor: usize, notice: Notice<'_>, payload: &[u8]) {
        let now = self.world.now;
        match notice {
            Notice::PushCredit { id, bytes } => {
                if let Some(sending) = self.actors[actor].pushes.get_mut(&id) {
                    sending.allowed += bytes as usize;
                }
            }
            Notice::PushDone { id, outcome } => {
                let sending = self.actors[actor].pushes.remove(&id).expect("one outcome a push");
                let block = &mut self.blocks[sending.block];
                assert_eq!(block.outcome.replace(outcome), None);
                let receiver = block.receiver;
                match outcome {
                    Outcome::Done { .. } | Outcome::Rejected
                        if block.bytes.len() >= 8 && !payload.is_empty() =>
                    {
                        let said = block.said.as_ref().expect("somebody said it");
                        assert_eq!((said.0, &said.1[..]), (outcome, payload));
                    }
                    Outcome::TimedOut => assert!(block.until.is_some_and(|until| until <= now)),
                    Outcome::NoReceiver | Outcome::Ambiguous => assert_eq!(receiver, None),
                    Outcome::Denied | Outcome::BadName => panic!("{outcome:?}"),
                    _ => {}
                }
            }
            Notice::Deliver { id, from, name, len } => {
                let name = name.to_owned();
                let got = Receiving { len, got: Vec::new(), from, name };
                assert!(self.actors[actor].deliveries.insert(id, got).is_none(), "announced once");
                self.got(actor, id, payload);
            }
            Notice::DeliverData { id } => self.got(actor, id, payload),
            Notice::DeliverCancel { id, .. } => drop(self.actors[actor].deliveries.remove(&id)),
            Notice::Published { receivers, .. } => {
                self.offered += u64::from(receivers);
                self.actors[actor].publishes -= 1;
            }
            Notice::NotPublished { .. } => self.actors[actor].publishes -= 1,
            Notice::Message { id, seq, dropped, retained, .. } => {
                assert_eq!(payload, content(0, payload.len()));
                let Some((last, credit)) = self.actors[actor].subscriptions.get_mut(&id) else {
                    return;
                };
                *credit = credit.checked_sub(1).expect("no more than there is credit for");
                self.lost += u64::from(dropped);
                if !retained {
                    assert!(seq > *last, "message {seq} after {last}");
                    *last = seq;
                    self.came += 1;
                }
            }
            Notice::Ended { id, .. } => {
                self.uncounted |= self.actors[actor].subscriptions.remove(&id).is_some();
            }
            Notice::Served { .. } | Notice::NotServed { .. } | Notice::Subscribed { .. } => {}
            Notice::Hello { .. } | Notice::Status | Notice::Pong { .. } => panic!("{notice:?}"),
        }
    }

    fn got(&mut self, actor: usize, id: u64, payload: &[u8]) {
        // What was answered early, or cancelled, may still have bytes on their way.
        let Some(got) = self.actors[actor].deliveries.get_mut(&id) else { return };
        let start = got.got.len();
        got.got.extend(payload);
        assert!(got.got.len() as u64 <= got.len, "more than was announced");
        let got = &self.actors[actor].deliveries[&id];
        let Some(number) = self.block_of(got) else { return };
        let pushed = &self.blocks[number].bytes;
        assert!(got.got[start..] == pushed[start..got.got.len()], "other bytes than were pushed");
        let block = &mut self.blocks[number];
        assert_eq!(
            (block.name, block.from, block.bytes.len() as u64),
            (&*got.name, got.from, got.len)
        );
        assert!(block.receiver.is_none_or(|receiver| receiver == actor), "a block in two places");
        block.receiver = Some(actor);
    }

    /// Sends what there is credit for; whether that was anything.
    fn send_more(&mut self, actor: usize) -> bool {
        let one = &mut self.actors[actor];
        if one.gone {
            return false;
        }
        let front = one.front;
        let mut sent = false;
        for (&id, sending) in &mut one.pushes {
            let bytes = &self.blocks[sending.block].bytes;
            let len = bytes.len();
            let part = (sending.allowed.min(len) - sending.sent).min(30_000);
            if part > 0 {
                let bytes = &bytes[sending.sent..sending.sent + part];
                self.world.write(front, Call::PushData { id }, bytes);
                sending.sent += part;
                sent = true;
            }
        }
        sent
    }
}
