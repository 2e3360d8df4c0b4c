use super::*;
use command::Command;

fn command(words: &[&str]) -> Command {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    parse(&words).unwrap().command.unwrap()
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

#[test]
fn options_may_stand_at_the_end() {
    let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
    let line = parse(&words("ls latest --password-file /p --json")).unwrap();
    assert!(line.json && matches!(line.command, Some(Command::Ls { .. })));
    assert_eq!(line.password_file, Some("/p".into()));
    let line = parse(&words("--password-file /p")).unwrap();
    assert!(line.command.is_none() && !line.json);
    assert!(parse(&[]).unwrap().command.is_none());
    assert!(parse(&words("ls --password-file")).is_err());
}
