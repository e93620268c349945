//! What the user knows of leaks already, and of whose code it is.

use std::env;

use leaktap_report::{Baseline, Needs, Own, Suppressions, read};

use crate::cli::Listing;
use crate::error::Error;

/// Those that `listing` and the environment name, and leaktap's own.
pub(crate) fn suppressions(listing: &Listing) -> Result<Suppressions, Error> {
    let named = env::var_os("LEAKTAP_SUPPRESSIONS").unwrap_or_default();
    let named = env::split_paths(&named).filter(|path| !path.as_os_str().is_empty());
    let mut all = Suppressions::default();
    for path in listing.suppressions.iter().cloned().chain(named) {
        all.read(&path)?;
    }
    if !listing.no_default_suppressions {
        all.add_default();
    }
    Ok(all)
}

/// What was left before, as the user's words on whose code it is have it.
pub(crate) fn baseline(listing: &Listing) -> Result<Option<Baseline>, Error> {
    let Some(path) = &listing.baseline else {
        return Ok(None);
    };
    let mut reports = read(path, Needs::default())?;
    let own = own(listing);
    reports.iter_mut().for_each(|report| own.mark(report));
    Ok(Some(Baseline::of(&reports)))
}

/// What the user says of whose code it is.
pub(crate) fn own(listing: &Listing) -> Own {
    Own {
        own: listing.own.clone(),
        not_own: listing.not_own.clone(),
    }
}
