//! The program: files, standard input, exit codes, help.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use rstest::rstest;

/// Runs the program with something on standard input.
fn run(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kubectl-kagenti"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).ok();
    child.wait_with_output().expect("ended")
}

/// Exit code, standard output, standard error.
fn convert(args: &[&str], input: &str) -> (Option<i32>, String, String) {
    let output = run(&[&["values", "convert"], args].concat(), input);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory") }
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path: PathBuf = self.dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    }
}

#[rstest]
#[case::empty("")]
#[case::null("null\n")]
#[case::braces("{}")]
fn nothing_gives_nothing(#[case] input: &str) {
    assert_eq!(convert(&["-f", "-"], input), (Some(0), "{}\n".to_owned(), String::new()));
    assert_eq!(convert(&["-f", "-", "-o", "set"], input), (Some(0), String::new(), String::new()));
    assert_eq!(convert(&["-f", "-", "--under", "x"], input), (Some(0), "{}\n".to_owned(), String::new()));
}

#[test]
fn values_go_out_and_remarks_to_standard_error() {
    let input = "keycloak: {realm: agents}\nrbac: {enable: true}\nfeatureGates: {injectTools: on}\n";
    let (code, out, err) = convert(&["-f", "-"], input);
    assert_eq!(code, Some(0));
    assert_eq!(
        out,
        "client-registration-ctl:\n  keycloak:\n    realm: agents\nfeatureGates:\n  injectTools: true\n"
    );
    assert_eq!(err, "dropped: rbac.enable: it is at its default\n");
    let (code, out, err) = convert(&["-f", "-"], "nameOverride: x\nkeycloak: {realm: agents}\n");
    assert_eq!(code, Some(1));
    assert!(out.contains("realm: agents"), "{out}");
    assert_eq!(
        err,
        "no new place: nameOverride: selectors of other tools rely on the name kagenti-operator-chart\n"
    );
}

#[test]
fn several_files_are_merged_in_order() {
    let files = Files::new();
    let one = files
        .write("one.yaml", "keycloak: {realm: a, publicUrl: https://a}\ncard-ctl: {extraArgs: [--one]}\n");
    let two = files.write("two.yaml", "card-ctl: {extraArgs: [--two]}\n");
    let (code, out, _) =
        convert(&["-f", &one, "--values", &two, "-f", "-"], "keycloak: {realm: b, publicUrl: null}\n");
    assert_eq!(code, Some(0));
    assert_eq!(
        out,
        "card-ctl:\n  extraArgs:\n  - --two\nclient-registration-ctl:\n  keycloak:\n    realm: b\n"
    );
}

#[test]
fn the_file_of_a_parent_chart_keeps_the_rest() {
    let input = "replicas: 2\nplatform:\n  kagenti:\n    keycloak: {realm: a}\n    nameOverride: x\n  other: {mlflow: {enable: true}}\n";
    let (code, out, err) = convert(&["-f", "-", "--under", "platform.kagenti"], input);
    assert_eq!(code, Some(1));
    assert_eq!(
        out,
        "platform:\n  kagenti:\n    client-registration-ctl:\n      keycloak:\n        realm: a\n  other:\n    mlflow:\n      enable: true\nreplicas: 2\n"
    );
    assert!(
        err.starts_with("no new place: platform.kagenti.nameOverride: ") && err.lines().count() == 1,
        "{err}"
    );
    // Nothing is left of it: it stays, so that a second time is fine.
    let (_, out, _) = convert(&["-f", "-", "--under", "k"], "k: {rbac: {enable: true}}\n");
    assert_eq!(out, "k: {}\n");
    assert_eq!(convert(&["-f", "-", "--under", "k"], &out), (Some(0), "k: {}\n".to_owned(), String::new()));
    assert_eq!(
        convert(&["-f", "-", "--under", "k"], "k: null\n"),
        (Some(0), "k: null\n".to_owned(), String::new())
    );
}

#[test]
fn arguments_for_helm() {
    let (code, out, _) = convert(&["-f", "-", "--output=set"], "mlflow: {enable: true, workspace: it's}\n");
    assert_eq!(code, Some(0));
    assert_eq!(
        out,
        "--set-json 'mlflow-ctl.enabled=true' \\\n--set-json 'mlflow-ctl.workspace=\"it'\\''s\"'\n"
    );
}

#[rstest]
#[case::no_file(&["-f", "/nowhere/old.yaml"], "", "error: /nowhere/old.yaml cannot be read: ")]
#[case::no_yaml(&["-f", "-"], "a: [", "error: standard input is no values file: line ")]
#[case::list(&["-f", "-"], "[1]", "error: standard input is no values file: it holds a list")]
#[case::twice(&["-f", "-", "-f", "-"], "", "error: `-f -` stands for standard input, which can be read only once")]
#[case::no_key(&["-f", "-", "--under", "c"], "b: 1\na: 1", "error: --under c: there is no such key; the values have a, b")]
#[case::no_map(&["-f", "-", "--under", "a"], "a: 1", "error: --under a: a is no map of values")]
#[case::no_files(&[], "", "error: the following required arguments were not provided:\n  --values <FILE>")]
#[case::form(&["-f", "-", "-o", "json"], "", "error: invalid value 'json' for '--output <OUTPUT>'\n  [possible values: yaml, set]")]
fn a_bad_call_ends_with_2_and_prints_nothing(#[case] args: &[&str], #[case] input: &str, #[case] says: &str) {
    let (code, out, err) = convert(args, input);
    assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
    assert!(err.starts_with(says), "{err}");
}

#[test]
fn version_of_the_plugin_is_one_line() {
    let output = run(&["version", "--client"], "");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let expected = format!("kubectl-kagenti {} (", env!("CARGO_PKG_VERSION"));
    assert!(output.status.success() && text.starts_with(&expected) && text.ends_with(")\n"), "{text}");
    assert_eq!(text.lines().count(), 1);
}

/// As a script reads it; no cluster is asked.
#[test]
fn version_of_the_plugin_is_a_document() {
    let output = run(&["version", "--client", "-o", "json"], "");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["plugin"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(output.status.success());
}

/// Nothing is done by accident: what is meant has to be said.
#[rstest]
#[case::what(&["uninstall"], "--remove-finalizers")]
#[case::namespace(&["uninstall", "--remove-finalizers", "-n", "../x"], "no name of a namespace")]
#[case::form(&["uninstall", "--remove-finalizers", "-o", "xml"], "possible values: table, json, yaml")]
fn uninstall_has_to_be_meant(#[case] args: &[&str], #[case] says: &str) {
    let output = run(args, "");
    let err = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{err}");
    assert!(err.contains(says), "{err}");
}

/// Help speaks of `kubectl kagenti`, fits a terminal and shows how the command is used.
#[rstest]
#[case(&["--help"], &["Usage: kubectl kagenti <COMMAND>", "version", "check", "uninstall", "values"])]
#[case(&["version", "--help"], &["--client", "--context <NAME>", "--kubeconfig <FILE>", "Exit code: 0, 1"])]
#[case(&["check", "--help"], &["-n team1", "never stored", "Exit code: 0 when all is well"])]
#[case(&["uninstall", "--help"], &["--dry-run", "--even-if-running", "Exit code: 0 when nothing waits", "-n team1"])]
#[case(&["values", "--help"], &["Usage: kubectl kagenti values <COMMAND>", "convert"])]
#[case(&["values", "convert", "--help"], &["Usage: kubectl kagenti values convert [OPTIONS] --values <FILE>", "--under <KEY>", "Exit code: 0, 1", "helm get values", "--under kagenti-operator-chart"])]
fn help(#[case] args: &[&str], #[case] says: &[&str]) {
    let output = run(args, "");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success());
    assert!(says.iter().all(|part| text.contains(part)), "{text}");
}
