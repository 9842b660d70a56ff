//! Runs as `publish` sees them: a plan, and images that are in the registry.

use archweld_model::{
    BuildOutcome, Built, Config, Deployment, Execution, ExecutionInput, Plan, Platform, Projects,
    TimingSeconds,
};
use serde_json::Value;

use crate::{CONFIG, Pushed, TestImage, World, repository};

/// The plan of an execution of that name, which began at ten o'clock.
pub fn plan(run: &str, input: Value) -> Plan {
    plan_of(CONFIG, run, input)
}

/// The same with another configuration.
pub fn plan_of(config: &str, run: &str, input: Value) -> Plan {
    make_plan(config, "2026-11-23T10:00:00.000Z", run, input)
}

/// The same of an execution that began at another time.
pub fn plan_at(time: &str, run: &str, input: Value) -> Plan {
    make_plan(CONFIG, time, run, input)
}

fn make_plan(config: &str, time: &str, run: &str, input: Value) -> Plan {
    let execution = Execution {
        arn: format!("arn:aws:states:us-east-1:123456789012:execution:multi-arch-build:{run}"),
        name: run.to_owned(),
        start_time: time.parse().unwrap(),
    };
    let deployment = Deployment {
        registry: "registry.example".to_owned(),
        source: "https://github.com/archweld/hello.git".to_owned(),
        projects: Projects {
            amd64: "archweld-amd64".to_owned(),
            arm64: "archweld-arm64".to_owned(),
            manifest: "archweld-manifest".to_owned(),
        },
    };
    let input = ExecutionInput::parse(input).unwrap();
    Plan::new(&Config::parse(config).unwrap(), input, execution, &deployment).unwrap()
}

/// What a build reports.
pub fn outcome(target: &str, built: &Built) -> BuildOutcome {
    BuildOutcome {
        target: target.to_owned(),
        built: built.clone(),
        build_id: "archweld-amd64:1".to_owned(),
        log: None,
        timing: TimingSeconds::new(),
    }
}

impl World {
    /// Pushes the images of a plan, each as `adapt` changes it, and gives what `publish` is sent.
    pub async fn publish_request(
        &self,
        plan: Plan,
        adapt: impl Fn(&mut TestImage),
    ) -> publish::Request {
        let (mut images, mut children) = (vec![], vec![]);
        for planned in &plan.platforms {
            let image = self.image_of(&plan, planned.platform, &adapt);
            let Pushed { built, .. } = image.push(self.cloud.registry(), &repository(), None).await;
            images.push(outcome(&planned.platform.to_string(), &built));
            children.push(image.child(&built));
        }
        let index = match plan.manifest {
            None => None,
            Some(_) => {
                let registry = self.cloud.registry();
                let digest =
                    crate::push_index(registry, &repository(), Some(&plan.tag), &children).await;
                let image = registry.manifest(&repository(), digest).await.unwrap();
                let built = Built {
                    digest,
                    media_type: image.media_type,
                    manifest_bytes: image.bytes.len() as u64,
                    size_bytes: 0,
                    attestations: vec![],
                };
                Some(outcome("manifest", &built))
            }
        };
        publish::Request { plan, images, index }
    }

    fn image_of(
        &self,
        plan: &Plan,
        platform: Platform,
        adapt: &impl Fn(&mut TestImage),
    ) -> TestImage {
        let mut image = TestImage::of(platform, &format!("{platform} of {}", plan.run));
        adapt(&mut image);
        image
    }

    /// The clients of `publish`.
    pub fn publish_clients(&self) -> publish::Clients {
        publish::Clients::new(&self.cloud.sdk_config())
    }
}
