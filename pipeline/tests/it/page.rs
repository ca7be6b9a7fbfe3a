//! The report of a drill in a real browser, Debian's Chromium without a window.
//!
//! Invariant: an error that a page logs is seen here, which a page that logs one proves.

use crate::drill::Town;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Debian's, where `fixtures/install` puts it.
const BROWSER: &str = "/usr/bin/chromium";

/// Logs every text of a drawing that ends outside of it, and every drawing that is wider than the page.
const MEASURE: &str = "<script>\
    for (const text of document.querySelectorAll('svg text')) {\
      const box = text.getBBox(), all = text.ownerSVGElement.viewBox.baseVal;\
      const fits = box.x >= 0 && box.y >= 0 && box.x + box.width <= all.width && box.y + box.height <= all.height;\
      if (!fits) console.error('cut off: ' + text.textContent);\
    }\
    for (const svg of document.querySelectorAll('svg')) {\
      if (svg.getBoundingClientRect().right > innerWidth) console.error('wider than the page');\
    }\
    console.log('measured ' + document.querySelectorAll('svg text').length);\
    </script>";

/// What a browser made of a page.
struct Opened {
    stdout: Vec<u8>,
    stderr: String,
}

impl Opened {
    /// Opens a page without a window; `how` says what is asked of the browser.
    fn new(folder: &Path, page: &Path, how: &[&str]) -> Self {
        // A profile of its own: what one browser leaves must not be in the way of the next.
        let profile = tempfile::tempdir_in(folder).unwrap();
        let in_profile = format!("--user-data-dir={}", profile.path().display());
        let address = format!("file://{}", page.display());
        // A browser that hangs fails the test instead of it.
        let output = Command::new("timeout")
            .args(["--kill-after=5", "120", BROWSER])
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"])
            .args(["--no-first-run", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--enable-logging=stderr", "--v=0"])
            .arg(in_profile)
            .args(how)
            .arg(address)
            .env("HOME", folder)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "is {BROWSER} installed (fixtures/install)? {stderr}");
        Self { stdout: output.stdout, stderr }
    }

    /// Lines that the page itself has logged, errors and exceptions that nobody caught among them.
    fn logged(&self) -> Vec<&str> {
        self.stderr.lines().filter(|line| line.contains("CONSOLE")).collect()
    }
}

#[test]
fn the_report_of_a_drill_opens_in_a_browser_without_an_error() {
    let town = Town::new();
    let folder = town.folder.path();
    let drilled = town.drill("both", &["--mark", "create-instance=12"]).expect(0).summary();
    town.run(&["report", "--format", "html", "--out", "drill.html"]).expect(0);
    let page = folder.join("drill.html");

    // WHEN it is opened THEN nothing is logged, and the document holds every phase, step and drawing
    let opened = Opened::new(folder, &page, &["--dump-dom"]);
    assert_eq!(opened.logged(), Vec::<&str>::new());
    let document = String::from_utf8_lossy(&opened.stdout);
    let list = |field: &str| drilled[field].as_array().cloned().unwrap_or_default();
    let phases = list("phases");
    assert!(phases.len() > 6, "{phases:?}");
    for named in phases.iter().chain(&list("steps")) {
        let cell = format!("<td>{}</td>", named["name"].as_str().unwrap());
        assert!(document.contains(&cell), "{cell}: {document}");
    }
    let unknown = document.matches("<td class=\"unknown\">UNKNOWN</td>").count();
    let steps = list("unknown_steps").len();
    let objectives = list("objectives");
    let unmet = objectives.iter().filter(|one: &&Value| one["verdict"] == "unknown").count();
    assert_eq!(unknown, steps + unmet, "{document}");
    assert!(document.contains("<svg") && document.contains("the RTO is 24:00:00"), "{document}");

    // AND it can be seen
    let picture = folder.join("drill.png");
    let screenshot = format!("--screenshot={}", picture.display());
    let seen = Opened::new(folder, &page, &[&screenshot, "--window-size=1000,2400"]);
    assert_eq!(seen.logged(), Vec::<&str>::new());
    let bytes = fs::read(&picture).unwrap();
    assert!(bytes.starts_with(b"\x89PNG") && bytes.len() > 20_000, "{} bytes", bytes.len());

    // AND phases and steps are drawn apart, whole, at 1000 pixels and at the 718 that A4 leaves between its margins
    let text = fs::read_to_string(&page).unwrap();
    assert!(text.contains("create-instance, 00:12:00") && text.contains("the RTO leaves them"));
    let measured = folder.join("measured.html");
    fs::write(&measured, text.replace("</body>", &format!("{MEASURE}</body>"))).unwrap();
    for width in ["1000", "718"] {
        let size = format!("--window-size={width},2400");
        let seen = Opened::new(folder, &measured, &["--dump-dom", &size]);
        let logged = seen.logged();
        assert!(logged.len() == 1 && logged[0].contains("measured "), "{width}: {logged:?}");
    }
}

#[test]
fn an_error_of_a_page_would_be_seen() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("broken.html");
    fs::write(&page, "<p>x</p><script>console.error('planted'); nowhere();</script>").unwrap();
    let opened = Opened::new(folder.path(), &page, &["--dump-dom"]);
    let logged = opened.logged().join("\n");
    assert!(logged.contains("planted") && logged.contains("nowhere"), "{}", opened.stderr);
}
