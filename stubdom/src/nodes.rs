//! Single nodes of the store, as a client reads them that others write at the same time.

use core::str::FromStr;

use embedded_io::{Read, Write};
use xenstore_core::client::{Client, Failure, Nodes};

/// What a node says; `None` if it is not there, or says nothing that can be understood.
///
/// # Errors
/// Any [`Failure`] but an answer.
pub fn read<V: FromStr, T: Read + Write>(
    store: &mut Client<T>,
    path: &str,
) -> Result<Option<V>, Failure<T::Error>> {
    match store.read(path) {
        Ok(value) => Ok(str::from_utf8(&value).ok().and_then(|value| value.parse().ok())),
        Err(failure) => none_if_refused(failure).map(|()| None),
    }
}

/// What others remove meanwhile, and what this domain may not see, is not there.
///
/// # Errors
/// Any [`Failure`] but an answer.
pub fn none_if_refused<V: Default, E>(failure: Failure<E>) -> Result<V, Failure<E>> {
    match failure {
        Failure::Answer(_) => Ok(V::default()),
        failure => Err(failure),
    }
}
