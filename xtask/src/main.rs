//! `cargo xtask`: the project's set-up and checks, as code in one place.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program writes to stdout and stderr"
)]

mod bench;
mod command;
mod demo;
mod generate;
mod lint;
mod manifest;
mod packages;
mod protoc;
mod servers;
mod test;

use std::env;
use std::process::ExitCode;

use command::Result;

const USAGE: &str = "\
Usage: cargo xtask COMMAND

  bench [NAME] [--against REV]
                        run the benchmarks, or one; what follows -- goes to it;
                        --against compares with another revision, both built and run in turn
  demo [ARGS]           build and run the arithmetic demo
  generate              generate Rust from our .proto files again
  lint [STEP]           check everything but the tests, or one step of it
  servers [NAME]        fetch the real servers that tests use, and print name, version, path
  test [NAME…] [--slow] run all tests, or those of some folders of crates/ or examples/, with real servers;
                        --slow adds those of more than 30 s, and what follows -- goes to the test runner";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match dispatch(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &[&str]) -> Result<ExitCode> {
    let Some((command, rest)) = args.split_first() else {
        return Err(USAGE.into());
    };
    match *command {
        "bench" => bench::main(rest),
        "demo" => demo::main(rest),
        "generate" => generate::main().map(|()| ExitCode::SUCCESS),
        "servers" => servers::main(rest).map(|()| ExitCode::SUCCESS),
        "lint" => lint::main(rest).map(|()| ExitCode::SUCCESS),
        "test" => test::main(rest),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        other => Err(format!("no command {other:?}\n{USAGE}").into()),
    }
}
