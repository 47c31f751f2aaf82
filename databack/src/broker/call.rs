//! What a front may say, and what is done about it.

use core::fmt::Write;
use core::time::Duration;

use xen_sys::page::Shared;

use super::publish::News;
use super::services::SERVICE_COST;
use super::session::{Answer, Sink};
use super::subscription::Wish;
use super::{Broker, ChannelId, Ended, Name, Violation};
use crate::frame::{
    Call, Limits, Notice, Outcome, PAYLOAD_MAX, REPLY_MAX, Reason, VERSION, is_name,
};
use crate::policy::Act;

impl<M: Shared> Broker<M> {
    /// Does what a call asks for. There is room for its answer. Where its payload goes.
    pub(super) fn take_call(
        &mut self,
        id: ChannelId,
        call: Call<'_>,
        payload: u32,
        now: Duration,
    ) -> Result<Sink, Violation> {
        let greeted = self.session(id).is_some_and(|session| session.greeted);
        let greets = matches!(call, Call::Hello { .. });
        if greeted == greets {
            return Err(Violation::Greeting);
        }
        if payload > most_payload(&call) {
            return Err(Violation::Payload);
        }
        match call {
            Call::Push { id: push, domain, name, len, timeout_ms } => {
                let block = super::push::Block { id: push, domain, name, len, timeout_ms };
                self.start_push(id, &block, payload, now)
            }
            Call::PushData { id: push } => self.continue_push(id, push, payload),
            Call::Done { id: delivery, flag } => {
                Ok(self.start_word(id, delivery, Outcome::Done { flag }, payload))
            }
            Call::Reject { id: delivery } => {
                Ok(self.start_word(id, delivery, Outcome::Rejected, payload))
            }
            Call::Publish { id: publish, topic, retain } => {
                let news = News { id: publish, topic, retain };
                self.start_publish(id, &news, payload as usize)
            }
            short => self.take_short(id, &short).map(|()| Sink::Nobody),
        }
    }

    /// The same for calls without a payload.
    fn take_short(&mut self, id: ChannelId, call: &Call<'_>) -> Result<(), Violation> {
        let notice = match *call {
            Call::Hello { version, features: _ } => return self.greet(id, version),
            Call::Status => return self.tell_status(id),
            Call::PushCancel { id: push } => {
                self.cancel_push(id, push);
                return Ok(());
            }
            Call::Credit { id: number, messages } => {
                self.credit(id, number, messages);
                return Ok(());
            }
            Call::Serve { name } => match self.add_service(id, name) {
                Ok(()) => Notice::Served { name },
                Err(reason) => Notice::NotServed { name: shown(name), reason },
            },
            Call::Unserve { name } => {
                self.remove_service(id, name);
                Notice::NotServed { name: shown(name), reason: Reason::Asked }
            }
            Call::Subscribe { id: number, filter, slow, credit } => {
                match self.subscribe(id, &Wish { id: number, filter, slow, credit }) {
                    Ok(()) => Notice::Subscribed { id: number },
                    Err(reason) => Notice::Ended { id: number, reason },
                }
            }
            Call::Unsubscribe { id: number } => {
                self.unsubscribe(id, number);
                Notice::Ended { id: number, reason: Reason::Asked }
            }
            Call::Ping { cookie } => Notice::Pong { cookie },
            // They have payloads.
            Call::Push { .. }
            | Call::PushData { .. }
            | Call::Done { .. }
            | Call::Reject { .. }
            | Call::Publish { .. } => return Ok(()),
        };
        self.answer(id, &notice, &[])
    }

    /// Writes an answer for which there is room.
    pub(super) fn answer(
        &mut self,
        id: ChannelId,
        notice: &Notice<'_>,
        payload: &[u8],
    ) -> Result<(), Violation> {
        let Some(channel) = self.channels.find_mut(id.0) else { return Ok(()) };
        channel.put(notice, payload)?;
        Ok(())
    }

    fn greet(&mut self, id: ChannelId, version: u16) -> Result<(), Violation> {
        if version == 0 {
            return Err(Violation::Greeting);
        }
        let limits = self.limits;
        let Some(channel) = self.channels.find_mut(id.0) else { return Ok(()) };
        let domain = channel.domain.raw();
        let Some(session) = channel.session() else { return Ok(()) };
        session.greeted = true;
        let limits = Limits {
            window: session.window,
            message: PAYLOAD_MAX,
            pushes: limits.pushes,
            publishes: limits.publishes,
            services: limits.services,
            subscriptions: u16::try_from(limits.subscriptions).unwrap_or(u16::MAX),
        };
        let version = version.min(VERSION);
        self.answer(id, &Notice::Hello { version, features: 0, domain, limits }, &[])
    }

    fn add_service(&mut self, id: ChannelId, name: &str) -> Result<(), Reason> {
        if !is_name(name) {
            return Err(Reason::BadName);
        }
        let most = usize::from(self.limits.services);
        let Some(channel) = self.channels.find_mut(id.0) else { return Err(Reason::Denied) };
        let domain = channel.domain;
        let account = self.accounts.find(domain).ok_or(Reason::Denied)?;
        if !account.rights.allow(Act::Serve(name)) {
            return Err(Reason::Denied);
        }
        let session = channel.session().ok_or(Reason::Denied)?;
        if session.services.len() >= most {
            return Err(Reason::TooMany);
        }
        if session.services.try_reserve(1).is_err() || !session.reserve() {
            return Err(Reason::NoMemory);
        }
        let name = Name::try_from(name).map_err(|_| Reason::BadName)?;
        self.services.add(&name, domain, id)?;
        if !self.accounts.charge(domain, SERVICE_COST, &self.limits) {
            self.services.remove(&name, domain, id);
            return Err(Reason::NoMemory);
        }
        session.services.push(name);
        Ok(())
    }

    fn remove_service(&mut self, id: ChannelId, name: &str) {
        let Some(domain) = self.domain_of(id) else { return };
        if self.services.remove(name, domain, id)
            && let Some(session) = self.session(id)
        {
            session.services.retain(|other| other != name);
            self.accounts.release(domain, SERVICE_COST);
        }
    }

    /// Ends what a front serves or subscribed to and no longer may.
    pub(super) fn revoke_services(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.find_mut(id.0) else { return };
        let Some(account) = self.accounts.find(channel.domain) else { return };
        let (domain, rights) = (channel.domain, &account.rights);
        let Some(session) = channel.session() else { return };
        let (mut place, before, mut room) = (0, session.services.len(), true);
        while let Some(name) = session.services.get(place) {
            if rights.allow(Act::Serve(name)) {
                place += 1;
                continue;
            }
            room = session.revoked.try_reserve(1).is_ok();
            if !room {
                break;
            }
            self.services.remove(name, domain, id);
            session.revoked.push(session.services.swap_remove(place));
            session.answers.push_back(Answer::Revoked);
        }
        let ended = before - session.services.len();
        let subscriptions = session.subscriptions.len();
        self.accounts.release(domain, ended * SERVICE_COST);
        if !room {
            return self.end(id, Ended::Denied);
        }
        for place in 0..subscriptions {
            let Some(session) = self.session(id) else { return };
            let Some(&(_, subscription)) = session.subscriptions.get(place) else { return };
            if !self.may_have(subscription) {
                self.end_subscription(subscription, Reason::Denied);
            }
        }
        self.wake(id);
    }

    /// Tells a front that it no longer serves a name; false if there is no room.
    pub(super) fn write_revoked(&mut self, id: ChannelId) -> Result<bool, Violation> {
        let Some(channel) = self.channels.find_mut(id.0) else { return Ok(true) };
        let Some(session) = channel.session() else { return Ok(true) };
        if let Some(name) = session.revoked.first().cloned() {
            let notice = Notice::NotServed { name: &name, reason: Reason::Denied };
            if !channel.put(&notice, &[])? {
                return Ok(false);
            }
        }
        let Some(session) = channel.session() else { return Ok(true) };
        session.answers.pop_front();
        if !session.revoked.is_empty() {
            session.revoked.remove(0);
        }
        Ok(true)
    }

    fn tell_status(&mut self, id: ChannelId) -> Result<(), Violation> {
        let Some(domain) = self.domain_of(id) else { return Ok(()) };
        let mut text = heapless::String::<{ REPLY_MAX as usize }>::new();
        // Text that does not fit is cut: it is for a human.
        let _ = self.write_status(&mut text, Some(domain));
        self.answer(id, &Notice::Status, text.as_bytes())
    }

    /// Writes what goes on, for a human: all of it.
    ///
    /// # Errors
    /// What `out` gives.
    pub fn status(&self, out: &mut impl Write) -> core::fmt::Result {
        self.write_status(out, None)
    }
}

/// The name of an answer: what cannot be a name is not repeated.
fn shown(name: &str) -> &str {
    if is_name(name) { name } else { "" }
}

/// The longest payload that a call has.
const fn most_payload(call: &Call<'_>) -> u32 {
    match call {
        Call::Push { .. } | Call::PushData { .. } | Call::Publish { .. } => PAYLOAD_MAX,
        Call::Done { .. } | Call::Reject { .. } => REPLY_MAX,
        Call::Hello { .. }
        | Call::Serve { .. }
        | Call::Unserve { .. }
        | Call::PushCancel { .. }
        | Call::Subscribe { .. }
        | Call::Unsubscribe { .. }
        | Call::Credit { .. }
        | Call::Status
        | Call::Ping { .. } => 0,
    }
}
