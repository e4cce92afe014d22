//! What the middleware must know of each route, as the route table says.

use axum::http::{HeaderMap, Method};

use super::access::Scope;
use crate::http::{accept, prefer};

/// The form of a route's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// JSON.
    Json,
    /// JSON, or a stream of events or bytes for a client that asks for them.
    Job,
    /// JSON, or bytes for a client that asks for them and waits for the end of its job.
    Submission,
    /// A form that every client gets, whatever it accepts.
    Fixed,
}

impl Form {
    /// Whether the client accepts it.
    pub(super) fn is_acceptable(self, headers: &HeaderMap) -> bool {
        match self {
            Self::Fixed => true,
            Self::Job if accept::prefers_events(headers) || accept::prefers_bytes(headers) => true,
            Self::Submission if accept::prefers_bytes(headers) && prefer::wait(headers).is_some() => true,
            Self::Json | Self::Job | Self::Submission => accept::takes(headers, "application", "json"),
        }
    }
}

/// The rules of one path.
#[derive(Debug)]
pub(crate) struct PathRules {
    path: &'static str,
    form: Form,
    /// The scopes that each method requires. Empty for a path that is open to everybody; its requests are not counted.
    scopes: Vec<(Method, &'static [Scope])>,
}

impl PathRules {
    /// The form of its answers.
    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// Whether its requests are neither counted nor checked for a key.
    pub(super) fn is_open(&self) -> bool {
        self.scopes.is_empty()
    }

    /// The scopes that the method requires; none when the path does not have the method.
    pub(super) fn scopes(&self, method: &Method) -> &'static [Scope] {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        self.scopes.iter().find(|(of, _)| of == method).map_or(&[], |(_, scopes)| *scopes)
    }
}

/// The rules of all paths.
#[derive(Debug, Default)]
pub(crate) struct Rules(Vec<PathRules>);

impl Rules {
    /// Adds a route. A route without a scope is open to everybody. The form of a path's answers is that of its first route.
    pub(crate) fn add(&mut self, path: &'static str, method: Method, scopes: &'static [Scope], form: Form) {
        let scopes = (!scopes.is_empty()).then_some((method, scopes));
        match self.0.iter_mut().find(|rules| rules.path == path) {
            Some(rules) => rules.scopes.extend(scopes),
            None => self.0.push(PathRules { path, form, scopes: scopes.into_iter().collect() }),
        }
    }

    /// The rules of this path of the route table.
    pub(super) fn of(&self, path: &str) -> Option<&PathRules> {
        self.0.iter().find(|rules| rules.path == path)
    }

    /// The paths that are open to everybody.
    pub(crate) fn open_paths(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().filter(|rules| rules.is_open()).map(|rules| rules.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_methods_of_a_path_share_its_form_and_have_their_own_scopes() {
        let mut rules = Rules::default();
        rules.add("/job/{id}", Method::GET, &[Scope::Read], Form::Job);
        rules.add("/job/{id}", Method::DELETE, &[Scope::Submit], Form::Json);
        rules.add("/livez", Method::GET, &[], Form::Fixed);

        let job = rules.of("/job/{id}").unwrap();
        assert_eq!(job.form(), Form::Job);
        assert_eq!(job.scopes(&Method::HEAD), [Scope::Read]);
        assert_eq!(job.scopes(&Method::DELETE), [Scope::Submit]);
        assert_eq!(job.scopes(&Method::PUT), []);
        assert_eq!(rules.open_paths().collect::<Vec<_>>(), ["/livez"]);
        assert!(rules.of("/jobs").is_none());
    }
}
