//! Packets: the lines that git's protocol is made of.
//!
//! <https://git-scm.com/docs/gitprotocol-common#_pkt_line_format> and, for side bands,
//! <https://git-scm.com/docs/gitprotocol-pack#_packfile_data>

use crate::RefUpdate;

/// The end of a list of packets.
pub(crate) const FLUSH: &[u8] = b"0000";
/// How much text a packet of a side band holds, in bytes: the length and the band's number take
/// five of 65,520.
const BAND_BYTES_MAX: usize = 65_515;
/// The band of data, here of git's report, and the band of what people read.
const DATA: u8 = 1;
const PROGRESS: u8 = 2;

/// A packet, or the end of a list of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    Line(&'a [u8]),
    Flush,
}

/// The bytes are no packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected packets of git's protocol")]
pub(crate) struct NoPacket;

/// The first packet and what follows it; none where it is not whole yet.
pub(crate) fn split(bytes: &[u8]) -> Result<Option<(Packet<'_>, &[u8])>, NoPacket> {
    let Some((head, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let head = std::str::from_utf8(head).map_err(|_| NoPacket)?;
    match usize::from_str_radix(head, 16).map_err(|_| NoPacket)? {
        0 => Ok(Some((Packet::Flush, rest))),
        length @ 4.. => {
            let whole = rest.split_at_checked(length - 4);
            Ok(whole.map(|(line, rest)| (Packet::Line(line), rest)))
        }
        _ => Err(NoPacket),
    }
}

/// A packet of a line that fits in one.
pub(crate) fn line(text: &[u8]) -> Vec<u8> {
    [format!("{:04x}", text.len() + 4).as_bytes(), text].concat()
}

/// Packets for the pusher's terminal, where git puts `remote: ` before each line.
pub(crate) fn progress(text: &str) -> Vec<u8> {
    let chunks = text.as_bytes().chunks(BAND_BYTES_MAX);
    chunks.flat_map(|chunk| line(&[&[PROGRESS], chunk].concat())).collect()
}

/// The updates that a push asks for, read as they come in.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    buffer: Vec<u8>,
    updates: Vec<RefUpdate>,
    done: bool,
}

impl Commands {
    /// How long the list may be, in bytes: some ten thousand branches and tags.
    const BYTES_MAX: usize = 4 * 1024 * 1024;

    /// Reads on; what follows the list, the pack, is not looked at.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<(), NoPacket> {
        if self.done {
            return Ok(());
        }
        self.buffer.extend_from_slice(bytes);
        let mut rest = self.buffer.as_slice();
        while let Some((packet, after)) = split(rest)? {
            rest = after;
            match packet {
                Packet::Flush => {
                    self.done = true;
                    break;
                }
                Packet::Line(line) => self.updates.extend(update(line)),
            }
        }
        let kept = if self.done { Vec::new() } else { rest.to_vec() };
        self.buffer = kept;
        if self.buffer.len() > Self::BYTES_MAX || self.updates.len() > Self::BYTES_MAX / 128 {
            return Err(NoPacket);
        }
        Ok(())
    }

    pub(crate) fn updates(self) -> Vec<RefUpdate> {
        self.updates
    }
}

/// `<old> <new> <ref>`, with the client's capabilities after a NUL on the first line. Other lines,
/// such as those of shallow clones, ask for no update.
fn update(line: &[u8]) -> Option<RefUpdate> {
    let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = std::str::from_utf8(line).ok()?.trim_end_matches('\n');
    let mut parts = text.splitn(3, ' ');
    let (before, after, name) = (parts.next()?, parts.next()?, parts.next()?);
    let is_object = |text: &str| {
        matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    (is_object(before) && is_object(after)).then(|| RefUpdate {
        name: name.to_owned(),
        before: before.to_owned(),
        after: after.to_owned(),
    })
}

/// What `git receive-pack` answered a push.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// The names that it updated.
    pub(crate) updated: Vec<String>,
    /// Where more can be told to the pusher: before the last packet of an answer in side bands.
    pub(crate) room: Option<usize>,
}

impl Received {
    pub(crate) fn read(answer: &[u8]) -> Result<Self, NoPacket> {
        let mut report = Vec::new();
        let (mut rest, mut room) = (answer, None);
        while let Some((packet, after)) = split(rest)? {
            match packet {
                Packet::Line([DATA, data @ ..]) => report.extend_from_slice(data),
                // A report without side bands.
                Packet::Line([b'a'..=b'z', ..]) => {
                    report = rest.to_vec();
                    break;
                }
                Packet::Line(_) => {}
                Packet::Flush => room = Some(answer.len() - rest.len()),
            }
            rest = after;
        }
        let mut updated = Vec::new();
        let mut rest = report.as_slice();
        while let Some((Packet::Line(line), after)) = split(rest)? {
            let name = line.strip_prefix(b"ok ").and_then(|name| std::str::from_utf8(name).ok());
            updated.extend(name.map(|name| name.trim_end_matches('\n').to_owned()));
            rest = after;
        }
        Ok(Self { updated, room })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OLD: &str = "1111111111111111111111111111111111111111";
    const NEW: &str = "2222222222222222222222222222222222222222";

    #[test]
    fn reads_commands_however_they_are_cut() {
        let mut request = line(b"shallow 3333333333333333333333333333333333333333");
        let first = format!("{OLD} {NEW} refs/heads/main\0 report-status side-band-64k");
        request.extend(line(first.as_bytes()));
        request.extend(line(format!("{NEW} {OLD} refs/heads/a b\n").as_bytes()));
        request.extend(FLUSH);
        request.extend(b"PACK\0zzzz");
        for size in 1..request.len() {
            let mut commands = Commands::default();
            for part in request.chunks(size) {
                commands.read(part).unwrap();
            }
            let names: Vec<_> = commands.updates().into_iter().map(|it| it.name).collect();
            assert_eq!(names, ["refs/heads/main", "refs/heads/a b"]);
        }
    }

    #[test]
    fn refuses_what_is_no_packet() {
        for bytes in [b"zzzz".as_slice(), b"0001", b"\xff\xff\xff\xff"] {
            assert_eq!(Commands::default().read(bytes), Err(NoPacket));
        }
    }

    #[test]
    fn reads_the_report_in_side_bands_and_without() {
        let lines = [&b"unpack ok\n"[..], b"ok refs/heads/main\n", b"ng refs/heads/x funny\n"];
        let mut report: Vec<u8> = lines.iter().flat_map(|it| line(it)).collect();
        report.extend(FLUSH);
        let plain = Received::read(&report).unwrap();
        assert_eq!((plain.updated, plain.room), (vec!["refs/heads/main".to_owned()], None));

        let mut answer = progress("counting\n");
        answer.extend(line(&[&[DATA], &report[..7]].concat()));
        answer.extend(line(&[&[DATA], &report[7..]].concat()));
        let end = answer.len();
        answer.extend(FLUSH);
        let banded = Received::read(&answer).unwrap();
        assert_eq!((banded.updated, banded.room), (vec!["refs/heads/main".to_owned()], Some(end)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..6),
            noise in prop::collection::vec(any::<u8>(), 0..40),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes: Vec<u8> = lines.iter().flat_map(|it| line(it)).collect();
            bytes.extend(noise);
            bytes.truncate(cut.index(bytes.len() + 1));
            Commands::default().read(&bytes).ok();
            let read = Received::read(&bytes);
            prop_assert!(read.is_err() || read.is_ok_and(|it| it.room <= Some(bytes.len())));
        }
    }

    #[test]
    fn a_long_text_takes_several_packets() {
        let text = "x".repeat(2 * BAND_BYTES_MAX + 1);
        let packets = progress(&text);
        assert_eq!(packets.len(), text.len() + 3 * 5);
        assert_eq!(&packets[..5], b"fff0\x02");
    }
}
