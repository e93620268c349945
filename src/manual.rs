//! Manual pages, and completions for shells, made from the command line's own definition.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::Cli;
use crate::error::Error;

/// Prints what completes leaktap's command line in `shell`.
pub(crate) fn completions(shell: Shell) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut visible(), "leaktap", &mut script);
    print(&script)
}

/// Prints the manual page of a command; without one, of leaktap.
pub(crate) fn man(command: Option<&str>) -> Result<(), Error> {
    let mut all = visible();
    all.build();
    let about = match command {
        None => &all,
        Some(name) => all
            .find_subcommand(name)
            .ok_or_else(|| Error::Usage(format!("there is no command {name}")))?,
    };
    let mut page = Vec::new();
    let source = concat!("leaktap ", env!("CARGO_PKG_VERSION"));
    let rendered = Man::new(about.clone()).source(source).render(&mut page);
    rendered.map_err(printing)?;
    print(&page)
}

/// The command line without what is leaktap's own business.
fn visible() -> clap::Command {
    let all = Cli::command();
    let shown = all
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    // An option that is left out of `-h` would have no text in the manual.
    let shown = shown.map(|command| command.clone().mut_args(|arg| arg.hide_short_help(false)));
    let shown: Vec<_> = shown.collect();
    let bare = clap::Command::new("leaktap").version(env!("CARGO_PKG_VERSION"));
    let mut bare = bare.subcommands(shown).arg_required_else_help(true);
    if let Some(about) = all.get_about() {
        bare = bare.about(about.clone());
    }
    match all.get_after_long_help() {
        Some(help) => bare.after_long_help(help.clone()),
        None => bare,
    }
}

fn print(text: &[u8]) -> Result<(), Error> {
    match io::stdout().lock().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(printing(error)),
        _ => Ok(()),
    }
}

fn printing(source: io::Error) -> Error {
    let what = "print";
    Error::System { what, source }
}
