//! A backup lists who may do what on its schema.

use backout::mysql::Granted;

use super::{Bed, run};

#[tokio::test]
async fn a_backup_lists_the_privileges_on_its_schema_and_tables() {
    let bed = Bed::new("CREATE TABLE t (id INT PRIMARY KEY, v INT); CREATE TABLE u (id INT PRIMARY KEY)").await;
    let name = &bed.name;
    let mut root = bed.root().await;
    run(&mut root, &format!("CREATE USER '{name}'@'%'")).await;
    let pattern = name.replace('_', "\\_");
    run(&mut root, &format!("GRANT SELECT, INSERT ON `{pattern}`.* TO '{name}'@'%' WITH GRANT OPTION")).await;
    run(&mut root, &format!("GRANT DELETE, UPDATE (v) ON `{name}`.t TO '{name}'@'%'")).await;
    run(&mut root, &format!("GRANT SELECT ON `{pattern}\\_backout\\_%`.* TO '{name}'@'%'")).await;

    let account = format!("'{name}'@'%'");
    let granted = |on: String, privileges: &[&str], grantable| Granted {
        account: account.clone(),
        on,
        privileges: privileges.iter().map(|privilege| (*privilege).to_owned()).collect(),
        grantable,
    };
    let listed: Vec<Granted> = bed.capture("p1").await.grants.into_iter().filter(|granted| granted.account == account).collect();
    assert_eq!(
        listed,
        [
            granted(format!("`{pattern}`.*"), &["INSERT", "SELECT"], true),
            granted(format!("`{name}`.`t`"), &["DELETE", "UPDATE (`v`)"], false),
        ]
    );
}
