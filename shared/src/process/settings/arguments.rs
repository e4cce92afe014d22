//! Flags and environment variables of the process. An empty variable counts as missing, because that is how a composition or a
//! chart leaves out a setting.

use std::ffi::{OsStr, OsString};

use clap::{Arg, Command, Parser, builder::Resettable};

/// Reads the arguments of the process. Prints errors or the help, and then ends the process.
#[must_use]
pub fn arguments<T: Parser>() -> T {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    read(std::env::args_os(), &is_empty).unwrap_or_else(|error| error.exit())
}

fn read<T: Parser>(
    arguments: impl IntoIterator<Item = OsString>,
    is_empty: &dyn Fn(&OsStr) -> bool,
) -> Result<T, clap::Error> {
    let mut command = without_empty_variables(T::command(), is_empty);
    let mut matches = command.try_get_matches_from_mut(arguments)?;
    T::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

fn without_empty_variables(command: Command, is_empty: &dyn Fn(&OsStr) -> bool) -> Command {
    command
        .mut_args(|arg| if arg.get_env().is_some_and(is_empty) { without_variable(arg) } else { arg })
        .mut_subcommands(|command| without_empty_variables(command, is_empty))
}

/// Removes the variable of an argument. The help still names it.
fn without_variable(arg: Arg) -> Arg {
    let name = arg.get_env().unwrap_or_default().to_string_lossy().into_owned();
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    arg.env(Resettable::Reset).help(format!("{help} [env: {name}=]"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[derive(Parser, Debug)]
    struct Cli {
        /// A number
        #[arg(long, env = "PATH", default_value = "7")]
        number: String,
        #[command(subcommand)]
        command: Option<Inner>,
    }

    #[derive(clap::Subcommand, Debug)]
    enum Inner {
        Deep {
            /// A file
            #[arg(long, env = "PATH")]
            file: Option<std::path::PathBuf>,
        },
    }

    fn given(flags: &[&str], is_empty: bool) -> Cli {
        let flags = std::iter::once("test").chain(flags.iter().copied()).map(OsString::from);
        read(flags, &|_| is_empty).unwrap()
    }

    #[test]
    fn an_empty_variable_counts_as_missing() {
        // PATH is set wherever tests run.
        assert_ne!(given(&[], false).number, "7");
        assert_eq!(given(&[], true).number, "7");
        assert_eq!(given(&["--number", "8"], true).number, "8");
        let deep = |is_empty| match given(&["deep"], is_empty).command {
            Some(Inner::Deep { file }) => file.is_some(),
            None => panic!("no command"),
        };
        assert!(deep(false) && !deep(true));
    }

    #[test]
    fn the_help_names_variables_that_are_empty() {
        let help = without_empty_variables(Cli::command(), &|_| true).render_help().to_string();
        assert!(help.contains("A number [env: PATH=] [default: 7]"), "{help}");
    }
}
