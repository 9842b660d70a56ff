//! Addresses of git repositories, compared by what they name rather than by how they are written.

use std::fmt;

/// The host and path of a git repository, in lower case, without `.git`.
///
/// `https://github.com/Team/App.git` and `git@github.com:team/app` are one address: providers do not
/// tell repositories apart by case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// With its port, where that is not the scheme's own.
    host: String,
    path: String,
}

impl Address {
    /// Reads a URL, or the short form of SSH, `git@host:path`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
            None => {
                let (host, path) = text.split_once(':')?;
                return Self::new(host, path);
            }
        };
        let (authority, path) = rest.split_once('/')?;
        let own_port = match scheme.as_str() {
            "https" => ":443",
            "http" => ":80",
            // The port of an SSH server says nothing of the web server beside it.
            "ssh" | "git+ssh" => {
                let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
                let host = host.split_once(':').map_or(host, |(host, _)| host);
                return Self::new(host, path);
            }
            _ => return None,
        };
        Self::new(authority.strip_suffix(own_port).unwrap_or(authority), path)
    }

    fn new(authority: &str, path: &str) -> Option<Self> {
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let path = path.trim_matches('/').to_lowercase();
        let path = path.strip_suffix(".git").unwrap_or(&path).trim_end_matches('/');
        (!host.is_empty() && !path.is_empty())
            .then(|| Self { host: host.to_lowercase(), path: path.to_owned() })
    }

    /// The repository of that name of CodeCommit's
    /// (<https://docs.aws.amazon.com/codecommit/latest/userguide/how-to-connect.html>).
    pub(crate) fn of_codecommit(region: &str, name: &str) -> Option<Self> {
        let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        Self::new(&format!("git-codecommit.{region}.{suffix}"), &format!("v1/repos/{name}"))
    }

    /// Whether CodeCommit has it, whose git servers want requests signed.
    pub(crate) fn is_codecommit(&self) -> bool {
        self.host.starts_with("git-codecommit.")
    }

    /// The host, with its port.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_repository_is_one_address_however_it_is_written() {
        let address = Address::parse("https://github.com/team/app.git");
        assert!(address.is_some());
        for text in [
            "https://github.com/Team/App",
            "https://GitHub.com:443/team/app/",
            "https://user:password@github.com/team/app.git/",
            "http://github.com:80/team/app",
            "git@github.com:team/app.git",
            "ssh://git@github.com/team/app.git",
            "ssh://git@github.com:2222/team/app",
        ] {
            assert_eq!(Address::parse(text), address, "{text}");
        }
    }

    #[test]
    fn other_repositories_are_other_addresses() {
        let address = Address::parse("http://localhost:8080/git/hello.git");
        for text in [
            "http://localhost:8081/git/hello.git",
            "http://localhost/git/hello.git",
            "http://localhost:8080/git/hello2.git",
            "http://localhost:8080/hello.git",
        ] {
            assert_ne!(Address::parse(text), address, "{text}");
        }
    }

    #[test]
    fn no_address_is_made_up() {
        for text in
            ["", "hello", "https://", "https://github.com", "https:///a", "ftp://a/b", ":", "a:"]
        {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_repository_of_codecommit_has_the_address_that_the_console_shows() {
        let shown = "https://git-codecommit.eu-west-1.amazonaws.com/v1/repos/MyDemoRepo";
        let address = Address::of_codecommit("eu-west-1", "MyDemoRepo");
        assert_eq!(Address::parse(shown), address);
        assert!(address.is_some_and(|address| address.is_codecommit()));
    }

    proptest! {
        #![proptest_config(crate::fuzz::config())]
        #[test]
        fn neither_case_nor_form_tell_repositories_apart(
            host in "[a-zA-Z0-9.-]{1,20}",
            path in "[a-zA-Z0-9]([a-zA-Z0-9._/-]{0,20}[a-zA-Z0-9])?",
        ) {
            prop_assume!(!path.to_lowercase().ends_with(".git"));
            let plain = Address::parse(&format!("https://{host}/{path}"));
            let path = path.to_uppercase();
            prop_assert_eq!(&Address::parse(&format!("git@{host}:{path}.git")), &plain);
            prop_assert_eq!(&Address::parse(&format!("ssh://git@{host}:22/{path}/")), &plain);
        }

        #[test]
        fn any_text_is_an_address_or_none(text in "(https://|git@|ssh://)?.{0,60}") {
            if let Some(address) = Address::parse(&text) {
                prop_assert!(!address.host.is_empty() && !address.path.is_empty());
            }
        }
    }
}
