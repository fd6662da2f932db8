//! `fanwire token …`: signed tokens, made and checked as the server would.

use std::error::Error;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use clap::{Args, Subcommand};
use fanwire::auth::{Issuer, KeySource, NewToken, SigningKey};
use fanwire::{Action, Arguments, AuthError, Channel, Credentials, Principal};

use crate::keys::parse_grant;
use crate::say::say;

/// `fanwire token`
#[derive(Debug, Args)]
pub(crate) struct TokenCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a signed token (JWT)
    ///
    /// The key is the `secret` of an issuer in the configuration, or stands in a file. With a configuration `iss` and
    /// `aud` are its issuer's.
    Mint(Box<Mint>),
    /// Say whether a token is accepted, and whose it is
    ///
    /// It is checked as the server would by this configuration; key sets are fetched.
    #[command(after_help = CHECK_CODES)]
    Check(Check),
}

const CHECK_CODES: &str = "Exit codes: 0 accepted, and all of --may allowed; 2 wrong arguments or configuration, 4 refused, \
                           5 something of --may is not allowed, 6 the issuer's keys cannot be had now.";

#[derive(Debug, Args)]
struct Mint {
    /// The configuration file whose issuer signs
    #[arg(long, value_name = "FILE", env = "FANWIRE_CONFIG")]
    config: Option<PathBuf>,
    /// A file with a secret of at least 32 bytes, for HS256; a line end at its end does not count
    #[arg(long, value_name = "FILE", conflicts_with = "key_file")]
    secret_file: Option<PathBuf>,
    /// A file with a private key (PEM), for RS256, ES256 or EdDSA
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Who issues it; with a configuration, which of its issuers
    #[arg(long)]
    iss: Option<String>,
    /// The user
    #[arg(long, value_name = "NAME")]
    sub: Option<String>,
    /// Whom it is for; may be given several times
    #[arg(long)]
    aud: Vec<String>,
    /// Which of the issuer's keys signs
    #[arg(long)]
    kid: Option<String>,
    /// How long it holds, e.g. 15m, 1h, 30days
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// What it may do, e.g. `publish,history:orders/**,news`; may be given several times; without, the issuer's rights
    #[arg(long, value_name = "ACTIONS:CHANNELS")]
    rights: Vec<String>,
}

#[derive(Debug, Args)]
struct Check {
    /// The token; "-" or nothing reads it from standard input, where others on the machine cannot see it
    token: Option<String>,
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "FANWIRE_CONFIG")]
    config: PathBuf,
    /// Something that it has to allow, e.g. `subscribe:orders/ann/1`; may be given several times
    #[arg(long, value_name = "ACTION:CHANNEL")]
    may: Vec<String>,
}

/// Does what `command` says.
pub(crate) fn run(command: TokenCommand) -> Result<ExitCode, Box<dyn Error>> {
    match command.what {
        What::Mint(mint) => make(*mint).map(|()| ExitCode::SUCCESS),
        What::Check(check) => look(check),
    }
}

fn make(mint: Mint) -> Result<(), Box<dyn Error>> {
    let mut token = NewToken::default();
    token.iss = mint.iss.clone();
    token.sub = mint.sub;
    token.aud = mint.aud;
    token.kid = mint.kid;
    token.lifetime = mint.ttl;
    token.rights = mint.rights.iter().map(|text| parse_grant(text)).collect::<Result<_, _>>()?;
    let issuer = mint.config.map(|file| issuer(file, mint.iss.as_deref())).transpose()?;
    if let Some(issuer) = &issuer {
        token.iss.clone_from(&issuer.iss);
        // One of the audiences is enough.
        if token.aud.is_empty() {
            token.aud.extend(issuer.aud.first().cloned());
        }
    }
    let key = match (mint.secret_file, mint.key_file, &issuer) {
        (Some(file), _, _) => SigningKey::secret(read(&file)?.trim_ascii_end()),
        (None, Some(file), _) => SigningKey::pem(&read(&file)?),
        (None, None, Some(Issuer { keys: KeySource::Secret(secret), .. })) => SigningKey::secret(secret),
        (None, None, Some(_)) => {
            return Err("the issuer's private key is not in the configuration; --key-file FILE has it".into());
        }
        (None, None, None) => {
            return Err("--config, --secret-file or --key-file FILE says with which key to sign".into());
        }
    }?;
    if let Some(issuer) = &issuer
        && !issuer.algorithms.contains(&key.algorithm())
    {
        return Err(format!("the issuer does not accept {}", key.algorithm().name()).into());
    }
    let text = token.sign(&key)?;
    Ok(writeln!(io::stdout(), "{text}")?)
}

/// The issuer of a configuration that is meant.
fn issuer(file: PathBuf, iss: Option<&str>) -> Result<Issuer, Box<dyn Error>> {
    let shown = file.display().to_string();
    let mut arguments = Arguments::default();
    arguments.config = Some(file);
    let mut issuers = fanwire::load(arguments, std::env::vars_os())?.rights.access.issuers;
    if let Some(iss) = iss {
        issuers.retain(|issuer| issuer.iss.as_deref() == Some(iss));
    }
    match issuers.len() {
        1 => Ok(issuers.remove(0)),
        0 => Err(format!("{shown} has no such entry in [[issuers]]").into()),
        _ => Err(format!("{shown} has several [[issuers]]; --iss says which").into()),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))
}

fn look(check: Check) -> Result<ExitCode, Box<dyn Error>> {
    const MAX_BYTES: u64 = 64 << 10;
    let wanted = check.may.iter().map(|text| wish(text)).collect::<Result<Vec<_>, _>>()?;
    let token = match check.token {
        Some(token) if token != "-" => token,
        _ => {
            let mut token = String::new();
            io::stdin().take(MAX_BYTES).read_to_string(&mut token)?;
            token.trim().to_owned()
        }
    };
    let mut arguments = Arguments::default();
    arguments.config = Some(check.config);
    let loaded = fanwire::load(arguments, std::env::vars_os())?;
    if !loaded.has_rights {
        return Err("this configuration has no rights: whatever is shown, everybody may do everything".into());
    }
    let mut credentials = Credentials::default();
    credentials.token = Some(&token);
    credentials.protocol = "http";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async { loaded.config.authenticator.authenticate(credentials).await });
    let principal = match answer {
        Ok(principal) => principal,
        Err(error) => {
            say(format!("fanwire: {error}"));
            let passing = matches!(error, AuthError::Unavailable(_) | AuthError::Busy { .. });
            return Ok(ExitCode::from(if passing { 6 } else { 4 }));
        }
    };
    show(&principal)?;
    let mut code = ExitCode::SUCCESS;
    for (action, channel) in wanted {
        if !principal.allows(action, &channel) {
            say(format!("fanwire: it may not {} {channel}", action.name()));
            code = ExitCode::from(5);
        }
    }
    Ok(code)
}

/// `subscribe:orders/ann/1`
fn wish(text: &str) -> Result<(Action, Channel), String> {
    let (action, channel) =
        text.split_once(':').ok_or_else(|| format!("{text:?}: write it as `subscribe:orders/ann/1`"))?;
    let names = Action::ALL.map(Action::name).join(", ");
    let action = Action::from_name(action).ok_or_else(|| format!("{action:?} is none of {names}"))?;
    let channel = Channel::parse(channel).map_err(|error| format!("{channel:?}: {error}"))?;
    Ok((action, channel))
}

fn show(principal: &Principal) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(
        out,
        "user: {}",
        principal.user().map_or_else(|| "none".to_owned(), |user| user.escape_debug().to_string())
    )?;
    let source = principal.source();
    writeln!(out, "vouched for by: {:?} {}", source.kind, source.name.escape_debug())?;
    match principal.expires_at_ms() {
        Some(end) => {
            let end = UNIX_EPOCH + Duration::from_millis(end);
            writeln!(out, "until: {}", humantime::format_rfc3339_seconds(end))?;
        }
        None => writeln!(out, "until: no end")?,
    }
    out.flush()
}
