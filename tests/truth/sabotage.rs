//! A way to PostgreSQL that takes a safeguard out of the SQL that passes, so that the tests show whether they would notice
//! its absence. The binary under test is the one that ships, and has no switch for this.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Nothing: the way itself must do no harm.
    Nothing,
    /// Progress is set, and compared with nothing.
    CompareAndSet,
    /// The offset is compared, the owner's epoch is not.
    OwnerEpoch,
    /// Progress is committed before the rest of the batch.
    OneTransaction,
}

/// In the statement that moves progress, in front of the last `'\0'` of its text.
const COMPARES: &[u8] = b" and p.owner_epoch = m.epoch and p.next_offset = m.expected";
const COMPARES_EPOCH: &[u8] = b" and p.owner_epoch = m.epoch";
/// How that statement is known.
const MOVES_PROGRESS: &[u8] = b"update partition_offsets p\nset next_offset";
/// PostgreSQL's `Query`: ends the transaction and begins the next.
const END_AND_BEGIN: &[u8] = b"Q\0\0\0\x12COMMIT; BEGIN\0";
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A way that is open until the process ends.
pub struct Proxy {
    pub url: String,
    /// How often something was taken out.
    pub taken_out: Arc<AtomicU64>,
}

pub fn listen(socket_dir: &Path, sabotage: Sabotage) -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let socket = socket_dir.join(".s.PGSQL.5432");
    let taken_out = Arc::new(AtomicU64::new(0));
    let url = format!("postgresql://finstream@127.0.0.1:{port}/postgres?sslmode=disable");
    let proxy = Proxy { url, taken_out: taken_out.clone() };
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let way = Way { sabotage, ends: Arc::default(), taken_out: taken_out.clone() };
            let socket = socket.clone();
            std::thread::spawn(move || way.open(client, socket));
        }
    });
    proxy
}

/// One connection.
#[derive(Clone)]
struct Way {
    sabotage: Sabotage,
    ends: Arc<Ends>,
    taken_out: Arc<AtomicU64>,
}

/// PostgreSQL answers each Sync and each Query with one ReadyForQuery, in order.
#[derive(Default)]
struct Ends {
    asked: AtomicU64,
    /// The answer to our own query follows this one; 0 when there is none.
    ours_after: AtomicU64,
}

impl Way {
    /// Until either side hangs up; then for both.
    fn open(self, client: TcpStream, socket: PathBuf) {
        let Ok(server) = UnixStream::connect(socket) else { return };
        let (from_client, to_client) = (client.try_clone().unwrap(), client.try_clone().unwrap());
        let (to_server, from_server) = (server.try_clone().unwrap(), server.try_clone().unwrap());
        let answers = self.clone();
        let answering = std::thread::spawn(move || {
            let _ = answers.answer(from_server, to_client);
            let _ = client.shutdown(std::net::Shutdown::Both);
        });
        let _ = self.ask(from_client, to_server);
        let _ = server.shutdown(std::net::Shutdown::Both);
        let _ = answering.join();
    }

    fn ask(&self, mut client: TcpStream, mut server: UnixStream) -> io::Result<()> {
        // The first message has no type.
        let mut length = [0; 4];
        client.read_exact(&mut length)?;
        let mut startup = vec![0; (u32::from_be_bytes(length) as usize).saturating_sub(4).min(MESSAGE_BYTES_MAX)];
        client.read_exact(&mut startup)?;
        server.write_all(&[&length[..], &startup].concat())?;
        let (mut moves_progress, mut is_moving) = (None, false);
        loop {
            let mut message = read_message(&mut client)?;
            match message[0] {
                b'P' => {
                    let name = text(&message[5..]).to_vec();
                    if find(&message, MOVES_PROGRESS).is_some() {
                        moves_progress = Some(name);
                    }
                    match self.sabotage {
                        Sabotage::CompareAndSet => self.blank(&mut message, COMPARES),
                        Sabotage::OwnerEpoch => self.blank(&mut message, COMPARES_EPOCH),
                        Sabotage::Nothing | Sabotage::OneTransaction => {}
                    }
                }
                b'B' => {
                    let portal = text(&message[5..]).len();
                    is_moving |= moves_progress.as_deref() == Some(text(&message[5 + portal + 1..]));
                }
                b'S' if is_moving && self.sabotage == Sabotage::OneTransaction => {
                    is_moving = false;
                    let asked = self.ends.asked.fetch_add(1, Ordering::SeqCst) + 1;
                    self.ends.ours_after.store(asked, Ordering::SeqCst);
                    message.extend_from_slice(END_AND_BEGIN);
                    self.taken_out.fetch_add(1, Ordering::SeqCst);
                }
                b'S' | b'Q' => {
                    self.ends.asked.fetch_add(1, Ordering::SeqCst);
                }
                _ => {}
            }
            server.write_all(&message)?;
        }
    }

    /// Takes a part out of a statement, and keeps its length.
    fn blank(&self, message: &mut [u8], part: &[u8]) {
        if let Some(at) = find(message, part) {
            message[at..at + part.len()].fill(b' ');
            self.taken_out.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn answer(&self, mut server: UnixStream, mut client: TcpStream) -> io::Result<()> {
        // The start of the session ends with one that nobody asked for.
        let mut answered = None;
        loop {
            let message = read_message(&mut server)?;
            client.write_all(&message)?;
            if message[0] == b'Z' {
                let count = answered.map_or(0, |count: u64| count + 1);
                answered = Some(count);
                if count > 0 && count == self.ends.ours_after.load(Ordering::SeqCst) {
                    while read_message(&mut server)?[0] != b'Z' {}
                }
            }
        }
    }
}

/// Type, length, body.
fn read_message(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = [0; 5];
    from.read_exact(&mut head)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    assert!((4..MESSAGE_BYTES_MAX).contains(&length), "a message of {length} bytes");
    let mut message = head.to_vec();
    message.resize(1 + length, 0);
    from.read_exact(&mut message[5..])?;
    Ok(message)
}

/// Up to its end.
fn text(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len())]
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}
