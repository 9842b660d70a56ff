//! What became of an event, for people.

use archweld_model::ImageName;
use serde::Serialize;

/// What an event started, and what it did not, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The executions that it started.
    pub started: Vec<Started>,
    /// The images that it started nothing for.
    pub skipped: Vec<Skipped>,
    /// The executions that were stopped, because a newer push is built.
    pub superseded: Vec<Superseded>,
    /// The parts of it that concern no image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<String>,
    /// The images that something should have started for. The same event again goes on from there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<Skipped>,
}

/// An execution that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Started {
    /// The image.
    pub image: ImageName,
    /// The execution's ARN.
    pub execution: String,
    /// What there is to say of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// An image that nothing was started for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The image.
    pub image: ImageName,
    /// Why not.
    pub reason: String,
    /// The execution that is there already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution: Option<String>,
}

/// An execution that was stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Superseded {
    /// The image.
    pub image: ImageName,
    /// The execution's ARN.
    pub execution: String,
    /// The execution of the newer push.
    pub by: String,
}

impl Outcome {
    /// An image that something went wrong for; what, the log says.
    pub(crate) fn fail(&mut self, image: &ImageName) {
        self.failed.push(Skipped {
            image: image.clone(),
            reason: "something went wrong; the function's log says what".to_owned(),
            execution: None,
        });
    }

    pub(crate) fn skip(&mut self, image: &ImageName, reason: impl Into<String>) {
        self.skipped.push(Skipped { image: image.clone(), reason: reason.into(), execution: None });
    }
}
