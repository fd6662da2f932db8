//! What is recorded of a session whose messages an engine keeps: numbers and texts in a row, under a version.

use broker_core::{MessageId, Qos};

use super::kept_will::KeptWill;

/// A session between two lives of the server.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Record {
    /// Seconds that it outlives its connection; `u32::MAX` is for ever.
    pub(crate) expiry_secs: u32,
    /// Whose client identifier it is; `None`: of nobody in particular.
    pub(crate) owner: Option<Box<str>>,
    /// The last packet identifier that was given.
    pub(crate) last_id: u16,
    pub(crate) subscriptions: Vec<Held>,
    pub(crate) inflight: Vec<Exchange>,
    pub(crate) will: Option<KeptWill>,
}

/// A subscription.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Held {
    pub(crate) filter: Box<str>,
    pub(crate) id: u32,
    pub(crate) qos: Qos,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) shared: bool,
    /// Nothing up to here is for it.
    pub(crate) since: u64,
}

/// A message on its way to the client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Exchange {
    pub(crate) packet_id: u16,
    /// Of the message; 0: the client has it, and PUBCOMP is awaited.
    pub(crate) offset: u64,
    /// It is at QoS 2.
    pub(crate) is_exact: bool,
}

/// What this version writes.
const VERSION: u8 = 1;

impl Record {
    /// Up to where nothing of it is to be read again, where it was served up to `position`.
    pub(crate) fn begins_behind(&self, position: MessageId) -> MessageId {
        let open = self.inflight.iter().filter(|exchange| exchange.offset > 0);
        let first = open.map(|exchange| exchange.offset - 1).min().unwrap_or(u64::MAX);
        MessageId::new(position.epoch(), position.offset().min(first))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.expiry_secs.to_be_bytes());
        out.push(u8::from(self.owner.is_some()));
        put_text(&mut out, self.owner.as_deref().unwrap_or_default());
        out.extend_from_slice(&self.last_id.to_be_bytes());
        put_len(&mut out, self.subscriptions.len());
        for held in &self.subscriptions {
            put_text(&mut out, &held.filter);
            out.extend_from_slice(&held.id.to_be_bytes());
            let flag = |is_set: bool, bit: u8| u8::from(is_set) << bit;
            out.push(
                held.qos as u8
                    | flag(held.no_local, 2)
                    | flag(held.retain_as_published, 3)
                    | flag(held.shared, 4),
            );
            out.extend_from_slice(&held.since.to_be_bytes());
        }
        put_len(&mut out, self.inflight.len());
        for exchange in &self.inflight {
            out.extend_from_slice(&exchange.packet_id.to_be_bytes());
            out.extend_from_slice(&exchange.offset.to_be_bytes());
            out.push(u8::from(exchange.is_exact));
        }
        out.push(u8::from(self.will.is_some()));
        if let Some(will) = &self.will {
            will.encode(&mut out);
        }
        out
    }

    /// `None`: another version wrote it, or it is none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Input(bytes);
        let [VERSION] = input.take()? else { return None };
        let expiry_secs = u32::from_be_bytes(input.take()?);
        let [has_owner] = input.take()?;
        let owner = input.text()?;
        let mut record = Self {
            expiry_secs,
            owner: (has_owner == 1).then_some(owner),
            last_id: u16::from_be_bytes(input.take()?),
            ..Self::default()
        };
        for _ in 0..input.len()? {
            let filter = input.text()?;
            let id = u32::from_be_bytes(input.take()?);
            let [flags] = input.take()?;
            let qos = match flags & 3 {
                0 => Qos::AtMostOnce,
                1 => Qos::AtLeastOnce,
                2 => Qos::ExactlyOnce,
                _ => return None,
            };
            let is_set = |bit: u8| flags >> bit & 1 == 1;
            record.subscriptions.push(Held {
                filter,
                id,
                qos,
                no_local: is_set(2),
                retain_as_published: is_set(3),
                shared: is_set(4),
                since: u64::from_be_bytes(input.take()?),
            });
        }
        for _ in 0..input.len()? {
            let packet_id = u16::from_be_bytes(input.take()?);
            let offset = u64::from_be_bytes(input.take()?);
            let [is_exact] = input.take()?;
            record.inflight.push(Exchange { packet_id, offset, is_exact: is_exact == 1 });
        }
        let [has_will] = input.take()?;
        if has_will == 1 {
            record.will = Some(KeptWill::decode(&mut input)?);
        }
        input.0.is_empty().then_some(record)
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_len(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

pub(super) struct Input<'b>(&'b [u8]);

impl<'b> Input<'b> {
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn len(&mut self) -> Option<usize> {
        usize::try_from(u32::from_be_bytes(self.take()?)).ok()
    }

    pub(super) fn bytes(&mut self) -> Option<&'b [u8]> {
        let len = self.len()?;
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    pub(super) fn text(&mut self) -> Option<Box<str>> {
        std::str::from_utf8(self.bytes()?).ok().map(Box::from)
    }
}

#[cfg(test)]
mod tests {
    use broker_core::{Channel, Principal, Publish, Rights};

    use super::super::end::PendingWill;
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_never_in_part() {
        let held = |filter: &str, qos, flag, since| Held {
            filter: filter.into(),
            id: 7,
            qos,
            no_local: flag,
            retain_as_published: !flag,
            shared: flag,
            since,
        };
        let publish = Publish::new(Channel::parse("gone").unwrap(), "c");
        let will = PendingWill { publish, delay_secs: 5, due_ms: 6, nonce: 7 };
        let principal = Principal::user_with("ann", Rights::all());
        let full = Record {
            expiry_secs: u32::MAX,
            owner: Some("o0:ann".into()),
            last_id: 65_535,
            subscriptions: vec![
                held("a/+/ü", Qos::ExactlyOnce, true, u64::MAX),
                held("", Qos::AtMostOnce, false, 0),
                held("$share/g/#", Qos::AtLeastOnce, true, 1),
            ],
            inflight: vec![
                Exchange { packet_id: 1, offset: 9, is_exact: false },
                Exchange { packet_id: 65_535, offset: 0, is_exact: true },
            ],
            will: Some(KeptWill::of(&will, &principal)),
        };
        for record in [full, Record::default()] {
            let bytes = record.encode();
            assert_eq!(Record::decode(&bytes).as_ref(), Some(&record));
            for len in 0..bytes.len() {
                assert_eq!(Record::decode(&bytes[..len]), None, "{len}");
            }
            assert_eq!(Record::decode(&[&bytes[..], &[0]].concat()), None);
        }
    }
}
