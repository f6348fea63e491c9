use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use serde::Deserialize;

use crate::{Error, ErrorKind, Result, Rotating, Secret};

/// Name and password of a registry's user.
///
/// In a configuration file it has a `name`, and one of `password` and `password_file`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Fields")]
#[non_exhaustive]
pub struct User {
    /// The name.
    pub name: String,
    password: Password,
}

#[derive(Clone, Debug)]
enum Password {
    Text(Secret),
    /// With what it had, once it could be read.
    File(PathBuf, Arc<OnceLock<Rotating<Secret>>>),
}

/// A user in a configuration file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    name: String,
    password: Option<Secret>,
    password_file: Option<PathBuf>,
}

impl TryFrom<Fields> for User {
    type Error = Error;

    fn try_from(fields: Fields) -> Result<Self> {
        match (fields.password, fields.password_file) {
            (Some(password), None) => Ok(Self::new(fields.name, password)),
            (None, Some(path)) => Ok(Self::from_file(fields.name, path)),
            _ => Err(refused("user: one of password and password_file is given")),
        }
    }
}

impl User {
    /// A user whose password never changes.
    pub fn new(name: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self { name: name.into(), password: Password::Text(password.into()) }
    }

    /// A user whose password is in a file, which is read for every log-in.
    ///
    /// A line end behind the password is not part of it. While the file cannot be read, the last
    /// good password stays in use.
    pub fn from_file(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), password: Password::File(path.into(), Arc::default()) }
    }

    /// The password as it is now.
    ///
    /// # Errors
    ///
    /// `Config`: its file cannot be read, and never could be.
    pub fn password(&self) -> Result<Secret> {
        let (path, file) = match &self.password {
            Password::Text(password) => return Ok(password.clone()),
            Password::File(path, file) => (path.clone(), file),
        };
        if let Some(file) = file.get() {
            file.suspect();
            return Ok(file.current().value);
        }
        let read = move || {
            Secret::read(&path).map_err(|cause| {
                refused(format!("password-file: cannot read {path:?}")).with_source(cause)
            })
        };
        let read = Rotating::new("password file", read, |password| Ok(password.clone()))?;
        Ok(file.get_or_init(|| read).current().value)
    }
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, "registry", "configure").with_message(message)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn unreadable_file_leaves_the_last_good_password_in_use() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("password");
        let user = User::from_file("svc", &path);
        assert!(user.password().is_err());
        for (text, expected) in [("one", "one"), ("", "one"), ("two", "two")] {
            fs::write(&path, text).expect("our file");
            assert_eq!(user.password().expect("known").expose(), expected);
        }
        fs::remove_file(&path).expect("our file");
        assert_eq!(user.password().expect("known").expose(), "two");
    }
}
