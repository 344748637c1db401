//! A headless Chromium, driven over its debugging pipe: JSON, a zero byte after each message.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest wait for the browser or the page.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where it is looked for, in this order.
const NAMES: &[&str] = &["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"];
const MAC: &[&str] = &[
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
];

/// One browser with one tab. Ends with the test.
pub struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    next_id: u64,
    /// What a user would find red in the console.
    problems: Vec<String>,
    waiting: VecDeque<Value>,
    _profile: TempDir,
}

/// How the page is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub width: u32,
    pub height: u32,
    pub scale: f64,
    pub dark: bool,
    pub still: bool,
}

impl Look {
    pub const LIGHT: Look = Look { width: 1360, height: 900, scale: 1.0, dark: false, still: false };
    pub const DARK: Look = Look { dark: true, ..Look::LIGHT };
    pub const PHONE: Look = Look { width: 360, height: 780, scale: 2.0, ..Look::LIGHT };
}

fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("FINSTREAM_BROWSER") {
        return PathBuf::from(named);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let named = NAMES.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    let found = named.chain(MAC.iter().map(PathBuf::from)).find(|place| place.exists());
    found.expect("no Chromium is here: run scripts/browser.sh, or set FINSTREAM_BROWSER")
}

impl Browser {
    pub fn start() -> Browser {
        let profile = tempfile::Builder::new().prefix("finstream-browser-").tempdir().unwrap();
        // The pipe's ends must be the file descriptors 3 and 4, which a shell can arrange without unsafe code.
        let mut child = Command::new("sh")
            .args(["-c", r#"exec "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#, "sh"])
            .arg(program())
            .args(["--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"])
            .args(["--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage"])
            .args(["--force-color-profile=srgb", "--font-render-hinting=none", "--lang=en-US"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, messages) = channel();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while answers.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                message.pop();
                let parsed = serde_json::from_slice(&message).unwrap_or(Value::Null);
                if sender.send(parsed).is_err() {
                    break;
                }
                message.clear();
            }
        });
        let commands = child.stdin.take().unwrap();
        let (problems, waiting) = (Vec::new(), VecDeque::new());
        let mut browser =
            Browser { child, commands, messages, session: None, next_id: 0, problems, waiting, _profile: profile };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attached =
            browser.call("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true }));
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Sends a command and gives its result; events that come meanwhile are read for problems.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.next_id += 1;
        let mut command = json!({ "id": self.next_id, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            command["sessionId"] = session.as_str().into();
        }
        let mut bytes = command.to_string().into_bytes();
        bytes.push(0);
        self.commands.write_all(&bytes).expect("the browser takes commands");
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let message = self.messages.recv_timeout(left);
            let message = message.unwrap_or_else(|error| panic!("no answer to {method}: {error}"));
            if message["id"] == self.next_id {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            self.event(message);
        }
    }

    fn event(&mut self, message: Value) {
        let parameters = &message["params"];
        match message["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" => self.problems.push(parameters["exceptionDetails"].to_string()),
            "Runtime.consoleAPICalled"
                if matches!(parameters["type"].as_str(), Some("error" | "warning" | "assert")) =>
            {
                self.problems.push(parameters["args"].to_string());
            }
            "Log.entryAdded" if matches!(parameters["entry"]["level"].as_str(), Some("error" | "warning")) => {
                self.problems.push(parameters["entry"].to_string());
            }
            "Page.loadEventFired" => self.waiting.push_back(message),
            _ => {}
        }
    }

    /// Opens an address, and waits until it has loaded.
    pub fn open(&mut self, address: &str, look: Look) {
        self.look(look);
        self.waiting.clear();
        let opened = self.call("Page.navigate", json!({ "url": address }));
        assert!(opened["errorText"].is_null(), "{address}: {opened}");
        let until = Instant::now() + PATIENCE;
        while self.waiting.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            let message = self.messages.recv_timeout(left).unwrap_or_else(|error| panic!("{address}: {error}"));
            self.event(message);
        }
    }

    /// Sets the window's size and the reader's wishes.
    pub fn look(&mut self, look: Look) {
        let size = json!({ "width": look.width, "height": look.height, "deviceScaleFactor": look.scale,
            "mobile": look.width < 500 });
        self.call("Emulation.setDeviceMetricsOverride", size);
        let scheme = if look.dark { "dark" } else { "light" };
        let motion = if look.still { "reduce" } else { "no-preference" };
        let wishes = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": motion }] });
        self.call("Emulation.setEmulatedMedia", wishes);
    }

    /// The value of an expression on the page; a promise is waited for.
    pub fn value(&mut self, expression: &str) -> Value {
        let asked =
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true });
        let answer = self.call("Runtime.evaluate", asked);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true on the page.
    pub fn wait_for(&mut self, expression: &str) {
        let polled = format!(
            "new Promise((resolve) => {{ const until = performance.now() + 20000; const look = () => {{
                if ({expression}) resolve(true); else if (performance.now() > until) resolve(false);
                else setTimeout(look, 20); }}; look(); }})"
        );
        if self.value(&polled) != true {
            panic!("never came true: {expression}\n{}", self.text("body"));
        }
    }

    /// What a selector's first element says, with single blanks.
    pub fn text(&mut self, selector: &str) -> String {
        let text = self.value(&format!("document.querySelector({selector:?})?.innerText ?? 'NOTHING THERE'"));
        text.as_str().unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// A key press, with its default action.
    pub fn press(&mut self, key: &str, code: u32) {
        for kind in ["rawKeyDown", "keyUp"] {
            let event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// A PNG of the page from its top, of this height at most.
    pub fn screenshot(&mut self, file: &Path, height_max: u32) {
        let size = self.call("Page.getLayoutMetrics", json!({}))["cssContentSize"].clone();
        let height = size["height"].as_f64().unwrap().min(f64::from(height_max));
        let clip = json!({ "x": 0, "y": 0, "width": size["width"], "height": height, "scale": 1 });
        let shot = self.call(
            "Page.captureScreenshot",
            json!({ "format": "png", "captureBeyondViewport": true, "clip": clip, "optimizeForSpeed": false }),
        );
        std::fs::write(file, from_base64(shot["data"].as_str().unwrap())).unwrap();
    }

    /// Nothing red was in the console so far.
    pub fn assert_no_problems(&mut self) {
        // A round trip brings in what was on its way.
        self.value("1");
        assert!(self.problems.is_empty(), "console:\n{}", self.problems.join("\n"));
    }

    /// Forgets what the console said of a server that the test took away, and only that.
    pub fn forget_lost_connections(&mut self) {
        self.value("1");
        self.problems.retain(|problem| !problem.contains("net::ERR_"));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.problems.is_empty() {
            eprintln!("console:\n{}", self.problems.join("\n"));
        }
        // It takes its own children along when it is asked to close; killed, it would leave them to find out.
        let _ = self.commands.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until && self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn from_base64(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0);
    for letter in text.bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    bytes
}
