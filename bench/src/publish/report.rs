//! From requests to lines of a table.

use std::time::{Duration, Instant};

use archweld_model::ImageTag;

use super::{
    image::Layer,
    proxy::{Noted, depth},
};
use crate::figures::{median, ratio, thousandth};

/// How a client asks whether, and with which credentials, a registry may be used.
const PING: &str = "GET /v2/";

/// What one publication took.
pub(crate) struct Sample {
    pub(crate) requests: Vec<Noted>,
    pub(crate) began: Instant,
    pub(crate) wall: Duration,
}

/// The figures of one number of platforms and one delay.
#[derive(Default)]
pub(crate) struct Table {
    publish: Line,
    without_layers: Line,
    until_fixed_tag: Line,
    docker: Line,
    without_pings: Line,
}

/// One line, of which each publication gives a sample.
#[derive(Default)]
struct Line {
    requests: Vec<usize>,
    depth: Vec<usize>,
    wall_micros: Vec<u64>,
}

impl Sample {
    /// Each request, in the order in which they ended.
    pub(crate) fn trace(&self, who: &str) -> String {
        let mut lines = format!("{who}:\n");
        let millis = |at: Instant| at.duration_since(self.began).as_secs_f64() * 1_000.0;
        for request in &self.requests {
            let Noted { what, tag, blob, status, .. } = request;
            let (began, ended) = (millis(request.began), millis(request.ended));
            // A path names its blob already.
            let blob = blob.as_deref().filter(|blob| !what.ends_with(blob));
            let about = tag.as_deref().or(blob).unwrap_or_default();
            let line = format!("  {began:>8.1} to {ended:>8.1} ms  {status}  {what} {about}");
            lines += &format!("{}\n", line.trim_end());
        }
        lines
    }
}

impl Table {
    pub(crate) fn note_publish(&mut self, sample: &Sample, fixed_tag: &ImageTag, layers: &[Layer]) {
        self.publish.note(&sample.requests, Some(sample.wall));
        let layers: Vec<String> = layers.iter().map(|layer| layer.digest.to_string()).collect();
        let mut requests = sample.requests.clone();
        requests.retain(|request| request.blob.as_ref().is_none_or(|blob| !layers.contains(blob)));
        self.without_layers.note(&requests, None);
        let mut set = requests.iter().filter(|it| it.tag.as_deref() == Some(fixed_tag.as_str()));
        let set = set.next().map_or(sample.began, |request| request.ended);
        requests.retain(|request| request.began < set);
        self.until_fixed_tag.note(&requests, Some(set.duration_since(sample.began)));
    }

    pub(crate) fn note_docker(&mut self, sample: &Sample) {
        self.docker.note(&sample.requests, Some(sample.wall));
        let mut requests = sample.requests.clone();
        requests.retain(|request| request.what != PING);
        self.without_pings.note(&requests, None);
    }

    pub(crate) fn lines(&self, platforms: usize, delay_ms: u64) -> String {
        let of = median(&self.docker.wall_micros).max(1);
        let lines = [
            ("publish", &self.publish),
            ("  without the look into layers", &self.without_layers),
            ("  until the fixed tag is set", &self.until_fixed_tag),
            ("docker manifest", &self.docker),
            ("  without its pings", &self.without_pings),
        ];
        let lines = lines.map(|(name, Line { requests, depth, wall_micros })| {
            let (wall, share) = match median(wall_micros) {
                0 => Default::default(),
                wall => (format!("{:.1}", thousandth(wall)), format!("{:.3}", ratio(wall, of))),
            };
            let (requests, depth) = (median(requests), median(depth));
            format!(
                "{platforms:>9} {delay_ms:>11}  {name:<30} {requests:>8} {depth:>6} {wall:>10} \
                 {share:>6}"
            )
        });
        // A line without a time ends with blanks.
        lines.map(|line| format!("{}\n", line.trim_end())).concat()
    }
}

impl Line {
    fn note(&mut self, requests: &[Noted], wall: Option<Duration>) {
        self.requests.push(requests.len());
        self.depth.push(depth(requests));
        let micros = wall.map(|wall| u64::try_from(wall.as_micros()).unwrap_or(u64::MAX));
        self.wall_micros.extend(micros);
    }
}

/// What stands above the lines.
pub(crate) fn head() -> String {
    format!(
        "{:>9} {:>11}  {:<30} {:>8} {:>6} {:>10} {:>6}\n",
        "platforms", "delay (ms)", "", "requests", "depth", "wall (ms)", "ratio"
    )
}

/// What stands below them.
pub(crate) fn foot(rounds: u32) -> String {
    format!(
        "medians of {rounds} rounds; ratio: wall time to that of docker manifest; pings: {PING}\n\
         the look into the layers, for the program that an image starts, comes before any tag\n\
         with no delay, requests sent at once may be answered one after another\n"
    )
}
