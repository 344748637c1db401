//! The role that others read with where the private server listens on TCP (`--pg-listen`), such as Grafana in a container.
//!
//! It may look at the totals and change nothing; its password is in a file of the data directory.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sqlx::Connection;

use super::database::execute;
use super::{Database, PostgresError};
use crate::data_dir::DataDir;

/// The role's name; `grafana/postgres/reader.sh` makes the same in a container.
pub const READER: &str = "finstream_reader";
const PASSWORD_FILE: &str = "postgres-reader-password";
/// Takes from everybody but a superuser what writes something down or stands in the pipeline's way.
const ONLY_LOOK: &str = include_str!("only_look.sql");
/// One at a time makes the role ("fing").
const LOCK: i64 = 0x66_69_6e_67;

/// Makes the role in the private server, with the password in the returned file. The schema must be there. Does nothing anew
/// that is there already.
///
/// # Errors
/// The file cannot be read or written, or the server refuses.
pub async fn admit_reader(data: &DataDir, database: &Database) -> Result<PathBuf, PostgresError> {
    let schema = &database.schema;
    let mut connection = database.connect().await?;
    let mut transaction = connection.begin().await?;
    execute(&mut transaction, &format!("select pg_advisory_xact_lock({LOCK})")).await?;
    let file = data.path().join(PASSWORD_FILE);
    let password = password(&file).map_err(PostgresError::io("read or write", &file))?;
    // A dashboard must not slow down what it watches. All but temp_file_limit are defaults that a session may change.
    let statements = format!(
        "do $$ begin if to_regrole('{READER}') is null then create role {READER}; end if; end $$;
         alter role {READER} with login nosuperuser nocreatedb nocreaterole noreplication nobypassrls
             connection limit 8 password '{password}';
         alter role {READER} set search_path = {schema};
         alter role {READER} set default_transaction_read_only = on;
         alter role {READER} set statement_timeout = '5s';
         alter role {READER} set idle_in_transaction_session_timeout = '30s';
         alter role {READER} set temp_file_limit = '1GB';
         grant usage on schema {schema} to {READER};
         grant select on all tables in schema {schema} to {READER};
         alter default privileges in schema {schema} grant select on tables to {READER}"
    );
    execute(&mut transaction, &statements).await?;
    execute(&mut transaction, ONLY_LOOK).await?;
    transaction.commit().await?;
    connection.close().await?;
    Ok(file)
}

/// The password in the file: hexadecimal digits, of 128 random bits. Made where there is none.
fn password(file: &Path) -> io::Result<String> {
    let known = match fs::read_to_string(file) {
        Ok(text) => text.trim().to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    if known.len() >= 32 && known.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Ok(known);
    }
    // Nobody else may read it, also not for a moment.
    let made = format!("{:032x}", rand::random::<u128>());
    let mut opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    opened.write_all(made.as_bytes())?;
    opened.sync_all()?;
    Ok(made)
}
