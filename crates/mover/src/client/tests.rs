use super::*;
use command::Command;

fn command(words: &[&str]) -> Command {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    parse(&words).unwrap().command
}

#[test]
fn commands_are_understood() {
    assert!(matches!(
        command(&["ls", "-l"]),
        Command::Ls {
            long: true,
            point: None
        }
    ));
    assert!(matches!(command(&["exit"]), Command::Quit));
    assert!(matches!(
        command(&["extract", "latest", "--all", "-o", "/x"]),
        Command::Extract {
            all: true,
            overwrite: false,
            ..
        }
    ));
    let error = parse(&["nonsense".to_owned()]).unwrap_err();
    assert_eq!(error.code(), "mover.client.command");
}
