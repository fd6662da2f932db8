//! Who is asked before something happens: the broker's authenticator and policy, and the hook that decides behind them.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use broker_core::{
    Answer, AuthError, Authenticated, Authenticator, Client, Credentials, Denied, Filter, Policy, Principal,
    Publish, Rights, SourceKind, Welcome, unix_ms,
};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue};
use http_edge::connection_id;

use super::answer::Granted;
use super::event::{Kind, Members, event};
use super::hook::{Decided, Hook};
use super::listening::known_of;
use super::settings::Settings;
use super::visit::{Known, Visit};
use super::webhooks::Inner;

/// When a client that could not be decided about may try again.
const RETRY: Duration = Duration::from_secs(1);

/// Asks one hook about one connection, when it is its turn.
async fn ask(hook: &Hook, visit: &Visit, kind: Kind, write: impl FnOnce(&mut Members<'_>) + Send) -> Decided {
    let _turn = visit.turn.lock().await;
    if visit.is_over() {
        return Decided::Unavailable;
    }
    let told = event(kind, unix_ms(), |data| {
        visit.write(data);
        write(data);
    });
    hook.ask(kind, &told, &visit.forwarded).await
}

/// Asks the authenticator, and the webhooks once there is one that decides. Until then it costs a look at a flag.
pub(super) struct Doorman {
    pub(super) authenticator: Arc<dyn Authenticator>,
    pub(super) asked: Asked,
}

impl Doorman {
    /// What the hooks make of whom the authenticator knows, or does not.
    fn decide<'a>(
        &'a self,
        credentials: &Credentials<'a>,
        known: Result<Principal, AuthError>,
    ) -> Authenticated<'a> {
        match known {
            Ok(principal) => self.asked.connect(credentials, principal),
            Err(error @ (AuthError::Required | AuthError::Invalid(_))) => {
                self.asked.introduce(credentials, error)
            }
            Err(error) => Answer::now(Err(error)),
        }
    }
}

impl Authenticator for Doorman {
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> Authenticated<'a> {
        let known = self.authenticator.authenticate(credentials);
        if !self.asked.0.decides.load(Ordering::Acquire) {
            return known;
        }
        match known.if_now() {
            Ok(known) => self.decide(&credentials, known),
            Err(later) => Answer::later(async move {
                let known = later.await;
                self.decide(&credentials, known).await
            }),
        }
    }

    fn still_holds(&self, principal: &Principal) -> bool {
        self.authenticator.still_holds(principal)
    }

    fn renewed(&self, principal: &Principal) -> Option<Principal> {
        // What a backend granted it does not come from its credentials.
        match principal.welcome() {
            Some(_) => self.authenticator.still_holds(principal).then(|| principal.clone()),
            None => self.authenticator.renewed(principal),
        }
    }
}

/// The policy that asks webhooks, after the one that is there.
pub(super) struct Asked(pub(super) Arc<Inner>);

impl Policy for Asked {
    fn connect<'a>(
        &'a self,
        credentials: &Credentials<'a>,
        principal: Principal,
    ) -> Answer<'a, Result<Principal, AuthError>> {
        let credentials = *credentials;
        let before = match &self.0.policy {
            Some(inner) => inner.connect(&credentials, principal),
            None => Answer::now(Ok(principal)),
        };
        before.then(move |principal| match principal {
            Ok(principal) => self.connect_to_hook(&credentials, principal),
            Err(error) => Answer::now(Err(error)),
        })
    }

    fn subscribe(&self, client: &Client<'_>, filter: &Filter) -> Answer<'static, Result<(), Denied>> {
        let Some(hook) = self.0.decider(Kind::Subscribe, |settings| settings.has_some_of(filter)) else {
            return self
                .0
                .policy
                .as_ref()
                .map_or(Answer::now(Ok(())), |inner| inner.subscribe(client, filter));
        };
        let visit = self.0.visit(client);
        let (name, filter_text) = match filter.as_literal() {
            Some(channel) => ("channel", channel.as_str().to_owned()),
            None => ("filter", filter.to_string()),
        };
        let asked = async move {
            let decided = ask(&hook, &visit, Kind::Subscribe, |data| {
                data.text(name, &filter_text);
            });
            match decided.await {
                Decided::Yes(_) => Ok(()),
                Decided::No(reason) => Err(Denied::Forbidden(said(reason))),
                Decided::Unavailable => Err(Denied::Unavailable { retry_after: RETRY }),
            }
        };
        match self.0.policy.as_ref().map(|inner| inner.subscribe(client, filter)) {
            None => Answer::later(asked),
            Some(before) => before.then(move |allowed| match allowed {
                Ok(()) => Answer::later(asked),
                Err(denied) => Answer::now(Err(denied)),
            }),
        }
    }

    fn publish(&self, client: &Client<'_>, publish: Publish) -> Answer<'static, Result<Publish, Denied>> {
        // A key over HTTP is a backend's own, as whoever signs for AWS: what it publishes is decided already.
        let is_key = client.protocol == "aws" || client.principal.source().kind == SourceKind::Key;
        let is_backend = is_request(client.protocol) && is_key;
        let of_channel = |settings: &Settings| settings.has_channel(publish.channel());
        let hook = self.0.decider(Kind::Publish, of_channel).filter(|_| !is_backend);
        let Some(hook) = hook else {
            return match &self.0.policy {
                Some(inner) => inner.publish(client, publish),
                None => Answer::now(Ok(publish)),
            };
        };
        let visit = self.0.visit(client);
        let asked = move |publish: Publish| async move {
            let decided = ask(&hook, &visit, Kind::Publish, |data| {
                data.text("channel", publish.channel().as_str());
                data.optional("content_type", publish.media_type().map(|kind| kind.as_str()));
                data.optional("event", publish.event_name());
                data.payload(publish.payload(), publish.media_type());
            });
            match decided.await {
                Decided::Yes(granted) => Ok(match granted.replace {
                    Some(replace) => replace.apply(publish),
                    None => publish,
                }),
                Decided::No(reason) => Err(Denied::Forbidden(said(reason))),
                Decided::Unavailable => Err(Denied::Unavailable { retry_after: RETRY }),
            }
        };
        match &self.0.policy {
            None => Answer::later(asked(publish)),
            Some(inner) => inner.publish(client, publish).then(move |allowed| match allowed {
                Ok(publish) => Answer::later(asked(publish)),
                Err(denied) => Answer::now(Err(denied)),
            }),
        }
    }
}

impl Asked {
    fn connect_to_hook<'a>(
        &'a self,
        credentials: &Credentials<'a>,
        principal: Principal,
    ) -> Answer<'a, Result<Principal, AuthError>> {
        if is_request(credentials.protocol) {
            return Answer::now(Ok(principal));
        }
        let visit = self.begin(credentials, &principal);
        let Some(hook) = self.0.decider(Kind::Connect, |_| true) else {
            return Answer::now(Ok(welcomed(principal, visit, Vec::new(), None)));
        };
        let credentials = *credentials;
        Answer::later(async move {
            let granted = ask_connect(&hook, &visit, &credentials).await?;
            Ok(let_in(principal, visit, *granted))
        })
    }

    /// Asks about a client of whom the authenticator says `error`. It is let in as whom and with what the hook says, and
    /// only if it says either: a mere yes is for whom the configuration knows.
    fn introduce<'a>(
        &'a self,
        credentials: &Credentials<'a>,
        error: AuthError,
    ) -> Answer<'a, Result<Principal, AuthError>> {
        let hook = self.0.decider(Kind::Connect, |_| true).filter(|_| !is_request(credentials.protocol));
        let Some(hook) = hook else { return Answer::now(Err(error)) };
        let stranger = Principal::anonymous(Rights::none());
        let visit = self.begin(credentials, &stranger);
        let credentials = *credentials;
        Answer::later(async move {
            let granted = ask_connect(&hook, &visit, &credentials).await?;
            if granted.user.is_none() && granted.rights.is_none() {
                return Err(error);
            }
            let principal = let_in(stranger, visit, *granted);
            match &self.0.policy {
                Some(policy) => policy.connect(&credentials, principal).await,
                None => Ok(principal),
            }
        })
    }

    fn begin(&self, credentials: &Credentials<'_>, principal: &Principal) -> Arc<Visit> {
        let known = Known {
            connection: credentials.key.map(connection_id).unwrap_or_default(),
            transport: credentials.transport,
            remote: credentials.remote.map(|remote| remote.ip()),
            ..known_of(principal)
        };
        Arc::new(Visit::new(credentials.protocol, known, self.forwarded(credentials)))
    }

    /// The headers of a client's own request that some hook wants to see in its decisions.
    fn forwarded(&self, credentials: &Credentials<'_>) -> Vec<(HeaderName, HeaderValue)> {
        let Some(head) = credentials.request::<Parts>() else { return Vec::new() };
        let hooks = self.0.hooks();
        let mut names: Vec<&HeaderName> = hooks
            .iter()
            .filter(|hook| hook.settings().events.iter().any(|kind| kind.is_decision()))
            .flat_map(|hook| &hook.settings().forward_headers)
            .collect();
        names.sort_unstable_by_key(|name| name.as_str());
        names.dedup();
        let values = |name: &HeaderName| {
            let name = name.clone();
            head.headers
                .get_all(&name)
                .iter()
                .map(move |value| (name.clone(), value.clone()))
                .collect::<Vec<_>>()
        };
        names.into_iter().flat_map(values).collect()
    }
}

/// Whether what comes by it is a request that stands alone, which is no connection: of the HTTP API, for a connection of
/// an API gateway, with items for GRIP.
fn is_request(protocol: &str) -> bool {
    matches!(protocol, "http" | "aws" | "grip")
}

async fn ask_connect(
    hook: &Hook,
    visit: &Visit,
    credentials: &Credentials<'_>,
) -> Result<Box<Granted>, AuthError> {
    let decided = ask(hook, visit, Kind::Connect, |data| write_connect(data, hook, credentials));
    match decided.await {
        Decided::Yes(granted) => Ok(granted),
        Decided::No(reason) => Err(AuthError::Denied(said(reason).into_owned())),
        Decided::Unavailable => Err(AuthError::Undecided { retry_after: RETRY }),
    }
}

/// The principal with what the hook grants it.
fn let_in(mut principal: Principal, visit: Arc<Visit>, granted: Granted) -> Principal {
    if let Some(user) = &granted.user {
        principal = principal.as_user(user);
    }
    if let Some(rights) = &granted.rights {
        let rights = rights.for_user(principal.user());
        principal = principal.with_rights(rights);
    }
    if let Some(end) = granted.expires_at_ms {
        let end = principal.expires_at_ms().map_or(end, |before| before.min(end));
        principal = principal.expiring_at(end);
    }
    visit.let_in(principal.user(), granted.context);
    welcomed(principal, visit, granted.subscribe, granted.reply)
}

fn welcomed(
    principal: Principal,
    visit: Arc<Visit>,
    subscribe: Vec<Filter>,
    reply: Option<Bytes>,
) -> Principal {
    let mut welcome = Welcome::default();
    (welcome.subscribe, welcome.reply, welcome.note) = (subscribe, reply, Some(visit as _));
    principal.welcomed(welcome)
}

fn said(reason: Option<String>) -> Cow<'static, str> {
    reason.filter(|reason| !reason.is_empty()).map_or(Cow::Borrowed("refused"), Cow::Owned)
}

/// What is said of a client that wants to connect.
fn write_connect(data: &mut Members<'_>, hook: &Hook, credentials: &Credentials<'_>) {
    let head = credentials.request::<Parts>();
    data.object("headers", |headers| {
        let Some(head) = head else { return };
        for name in &hook.settings().forward_headers {
            let values: Vec<_> = head
                .headers
                .get_all(name)
                .iter()
                .map(|value| String::from_utf8_lossy(value.as_bytes()))
                .collect();
            if !values.is_empty() {
                headers.text(name.as_str(), &values.join(", "));
            }
        }
    });
    data.object("query", |query| {
        let text = head.and_then(|head| head.uri.query()).unwrap_or_default();
        let mut seen: Vec<String> = Vec::new();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            if !seen.iter().any(|known| *known == name) {
                query.text(&name, &value);
                seen.push(name.into_owned());
            }
        }
    });
    data.optional("client_id", credentials.client_id);
    if let Some(user) = credentials.user {
        data.text("username", user);
    }
    match credentials.password.map(|password| (password, std::str::from_utf8(password))) {
        Some((_, Ok(text))) => _ = data.text("password", text),
        Some((bytes, Err(_))) => {
            use base64::Engine as _;
            data.text("password_base64", &base64::engine::general_purpose::STANDARD.encode(bytes));
        }
        None => {}
    }
    if let Some(ext) = credentials.ext {
        data.raw("ext", ext.as_bytes());
    }
    if !credentials.filters.is_empty() {
        data.list("channels", credentials.filters.iter().map(ToString::to_string));
    }
}
