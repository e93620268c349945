//! What `--help` says after the options, and manual pages with it.

/// The exit statuses of all commands.
macro_rules! exit_status {
    () => {
        "\
Exit status:
  run     that of the program; 128+N if signal N ended it
  others  0
  N       of --error-exitcode N: leaks remain, and the program itself has not failed
  2       wrong usage
  125     leaktap failed, or nothing could be watched
  126     the program cannot be executed
  127     the program is not found"
    };
}

pub(super) const ALL: &str = concat!(
    "\
Examples:
  leaktap attach 4711 --duration 30s         a service that grows, for half a minute
  leaktap attach nginx                       by its name, until Ctrl-C
  leaktap run -- ./server --port 8080        from the first allocation on
  leaktap run --error-exitcode 1 -- ./tests  in CI
  leaktap doctor 4711                        can it be attached, and what will be probed?
  leaktap demo                               try it

",
    exit_status!()
);

pub(super) const RUN: &str = concat!(
    "\
Examples:
  leaktap run -- ./server --port 8080
  leaktap run --error-exitcode 1 -- ./tests
  leaktap run -o %n-%p.leaktap --report-file report.txt -- ./server
  leaktap run -F json --report-file report.json -- ./server

",
    exit_status!()
);

pub(super) const ATTACH: &str = concat!(
    "\
Examples:
  leaktap attach 4711                           until Ctrl-C
  leaktap attach nginx --duration 1h30m         the only process of that name
  leaktap attach 4711 --duration 60s --older 30s
                                                what was kept for half a minute at least
  leaktap attach 4711 -o %n.leaktap -q > /dev/null; leaktap report nginx.leaktap

",
    exit_status!()
);

pub(super) const REPORT: &str = "\
Examples:
  leaktap report server.leaktap --by function --top 20
  leaktap report server.leaktap -F flamegraph > server.svg
  ssh host leaktap attach 4711 -F json --duration 30s | leaktap report -

Exit status: 0; N of --error-exitcode N if leaks remain; 2 wrong usage; 125 failure";

pub(super) const DIFF: &str = "\
Examples:
  leaktap diff monday.leaktap tuesday.leaktap
  leaktap diff monday.leaktap -p 4711 --duration 60s
  leaktap diff main.leaktap branch.leaktap --error-exitcode 1

Exit status: 0; N of --error-exitcode N if something is new or grown; 2 wrong usage; 125 failure";

pub(super) const DOCTOR: &str = "\
Exit status: 0; 2 wrong usage; 125 if something is in the way";

pub(super) const COMPLETIONS: &str = "\
Examples:
  leaktap completions bash > ~/.local/share/bash-completion/completions/leaktap
  leaktap completions zsh > \"${fpath[1]}/_leaktap\"
  leaktap completions fish > ~/.config/fish/completions/leaktap.fish";

pub(super) const MAN: &str = "\
Examples:
  leaktap man | man -l -
  leaktap man attach > /usr/local/share/man/man1/leaktap-attach.1";
