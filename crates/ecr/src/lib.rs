//! A repository of ECR's: images by digest or by tag, tags that are set, and moving tags that end
//! at the newest run.
//!
//! What ECR says is told apart here once: an image that is not there, one that cannot be read, a tag
//! that may not move. What an image must be is for others to judge.

mod image;
mod newest;
mod repository;

pub use image::{Image, Reference};
pub use newest::{move_to_newest, newest};
pub use repository::{EcrError, IfTaken, Put, Repository, TagRules, patient_client};
