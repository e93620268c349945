//! Debug files from the servers of DEBUGINFOD_URLS (debuginfod(8)), through the cache that all
//! clients share.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{env, fmt, fs, io};

use leaktap_image::ElfFile;
use leaktap_report::Mode;

use crate::cli::Listing;

/// Longest that all servers are waited for, and for a connection, unless DEBUGINFOD_MAXTIME says
/// otherwise.
const LONGEST: Duration = Duration::from_secs(20);
const LONGEST_TO_CONNECT: Duration = Duration::from_secs(3);

const SHORTEST: Duration = Duration::from_millis(100);

/// Most bytes of a file, unless DEBUGINFOD_MAXSIZE says otherwise.
const LARGEST: u64 = 1 << 30;

/// Where debug files can be had, and what may be spent on that.
pub(crate) struct Servers {
    urls: Vec<String>,
    cache: PathBuf,
    /// How long servers may still be waited for.
    left: Duration,
    largest: u64,
    missing: HashSet<String>,
    /// Why a file was not had that a server may have.
    pub(crate) trouble: Option<String>,
}

impl Servers {
    /// Those that the environment names. A program that is tested (CI is set) is not kept waiting
    /// for its report, unless the user asks for it.
    pub(crate) fn of(listing: &Listing, mode: Mode) -> Option<Servers> {
        if mode == Mode::Run && set("CI").is_some() && !listing.debuginfod {
            return None;
        }
        let urls = set("DEBUGINFOD_URLS")?;
        let urls = urls
            .split_whitespace()
            .map(|url| url.trim_end_matches('/').to_owned());
        let is_web = |url: &String| url.starts_with("http://") || url.starts_with("https://");
        let urls: Vec<_> = urls.filter(is_web).collect();
        let number = |name| set(name)?.parse::<u64>().ok().filter(|number| *number > 0);
        (!urls.is_empty()).then_some(())?;
        Some(Servers {
            urls,
            cache: cache()?,
            left: number("DEBUGINFOD_MAXTIME").map_or(LONGEST, Duration::from_secs),
            largest: number("DEBUGINFOD_MAXSIZE").unwrap_or(LARGEST),
            missing: HashSet::new(),
            trouble: None,
        })
    }

    /// The debug file of what has this build id.
    pub(crate) fn debug_file(&mut self, id: &str) -> Option<ElfFile> {
        let is_id = id.len() >= 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_id || self.missing.contains(id) {
            return None;
        }
        let folder = self.cache.join(id);
        let path = folder.join("debuginfo");
        let found = right(&path, id).or_else(|| {
            fs::create_dir_all(&folder).ok()?;
            let part = folder.join(format!("leaktap.{}", std::process::id()));
            let fetched = self
                .fetch(id, &part)
                .filter(|()| right(&part, id).is_some());
            let kept = fetched.and_then(|()| fs::rename(&part, &path).ok());
            // What is not right is not kept.
            let _ = fs::remove_file(&part);
            kept.and_then(|()| right(&path, id))
        });
        if found.is_none() {
            self.missing.insert(id.to_owned());
        }
        found
    }

    fn fetch(&mut self, id: &str, path: &Path) -> Option<()> {
        for url in self.urls.clone() {
            // curl takes tenths of a second, and 0 for no limit.
            if self.left < SHORTEST {
                self.trouble = Some("DEBUGINFOD_URLS: the time for its servers is over".to_owned());
                return None;
            }
            let begun = Instant::now();
            let status = self.curl(&format!("{url}/buildid/{id}/debuginfo"), path);
            self.left = self.left.saturating_sub(begun.elapsed());
            match status {
                Ok(Answer { status, code: 404 }) if status.code() == Some(22) => {}
                Ok(Answer { status, .. }) if status.success() => return Some(()),
                Ok(answer) => {
                    self.trouble = Some(format!("DEBUGINFOD_URLS: {url} fails ({answer})"));
                    // One that does not answer is not asked again.
                    self.urls.retain(|other| *other != url);
                }
                Err(error) => {
                    let trouble = format!("DEBUGINFOD_URLS is set, but curl cannot run: {error}");
                    self.trouble = Some(trouble);
                    self.left = Duration::ZERO;
                    return None;
                }
            }
        }
        None
    }

    /// What comes of curl(1), which knows proxies and certificates.
    fn curl(&self, url: &str, path: &Path) -> io::Result<Answer> {
        let longest = format!("{:.1}", self.left.as_secs_f64());
        let to_connect = LONGEST_TO_CONNECT.min(self.left);
        let to_connect = format!("{:.1}", to_connect.as_secs_f64());
        let largest = self.largest.to_string();
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--fail", "--location", "--proto", "=http,https"])
            .args(["--max-time", &longest, "--connect-timeout", &to_connect])
            .args(["--max-filesize", &largest, "--output"])
            .arg(path)
            .args(["--write-out", "%{http_code}", "--", url]);
        let output = curl.stdin(Stdio::null()).stderr(Stdio::null()).output()?;
        let code = String::from_utf8_lossy(&output.stdout);
        Ok(Answer {
            status: output.status,
            code: code.trim().parse().unwrap_or(0),
        })
    }
}

/// How a request has ended.
struct Answer {
    /// Of curl.
    status: ExitStatus,
    /// HTTP's; 0 without any.
    code: u32,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            0 | 200..300 => write!(f, "curl: {}", self.status),
            code => write!(f, "HTTP {code}"),
        }
    }
}

/// The file at `path`, if it has this build id.
fn right(path: &Path, id: &str) -> Option<ElfFile> {
    let file = ElfFile::regular(path)?;
    (file.build_id_hex().as_deref() == Some(id)).then_some(file)
}

fn set(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.trim().is_empty())
}

fn cache() -> Option<PathBuf> {
    let named = set("DEBUGINFOD_CACHE_PATH").map(PathBuf::from);
    let below = |name, more: &str| Some(Path::new(&set(name)?).join(more));
    named
        .or_else(|| below("XDG_CACHE_HOME", "debuginfod_client"))
        .or_else(|| below("HOME", ".cache/debuginfod_client"))
}
