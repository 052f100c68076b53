//! Every column type with hostile values, there and back, compared value by value with SQL that shares nothing with the engine's encoding.

use std::fmt::Write as _;

use backout::mysql::{Database, Manifest, checksum, load};
use object_store::path::Path;
use sqlx::{AssertSqlSafe, Row};

use super::{Bed, ask, query, run};

/// Tables of every kind, and rows that are hard to carry.
fn hostile() -> String {
    let members: Vec<String> = (1..=64).map(|n| format!("'m{n}'")).collect();
    let members = members.join(",");
    format!(
        r#"
CREATE TABLE numbers (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, t TINYINT, tu TINYINT UNSIGNED, s SMALLINT, m MEDIUMINT, i INT, b BIGINT,
  bu BIGINT UNSIGNED, z INT(8) ZEROFILL, d DECIMAL(65,30), d0 DECIMAL(20,0), bool BOOLEAN, bit1 BIT(1), bit10 BIT(10), bit64 BIT(64)) AUTO_INCREMENT=5000;
INSERT INTO numbers VALUES
  (0, -128, 255, -32768, -8388608, -2147483648, -9223372036854775808, 18446744073709551615, 42, -99999999999999999999999999999999999.999999999999999999999999999999, -99999999999999999999, TRUE, b'1', b'1000000001', x'FFFFFFFFFFFFFFFF'),
  (1, 127, 0, 32767, 8388607, 2147483647, 9223372036854775807, 0, 0, 0.000000000000000000000000000001, 0, FALSE, b'0', b'0', x'8000000000000000'),
  (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL), (-7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
CREATE TABLE floats (id INT PRIMARY KEY, f FLOAT, d DOUBLE, fd FLOAT(7,4), du DOUBLE UNSIGNED);
INSERT INTO floats VALUES (1, 0.1, 0.1, 123.4567, 1e308), (2, 3.4028234663852886e38, 1.7976931348623157e308, -999.9999, 0),
  (3, 1.401298464324817e-45, 4.9406564584124654e-324, 0, 2.2250738585072014e-308), (4, -1.1754942106924411e-38, -2.2250738585072009e-308, NULL, NULL),
  (5, 16777217, 9007199254740993, 0.0001, 1e22), (6, 1234567.9, 0.30000000000000004, 1.5, 123456789012345678), (7, NULL, NULL, NULL, NULL), (8, -0.0, -0.0, -0.0, 0);
CREATE TABLE dates (id INT PRIMARY KEY, d DATE, t TIME(6), dt DATETIME(6), ts TIMESTAMP(6) NULL DEFAULT NULL, ts0 TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, y YEAR);
SET time_zone = '+05:30';
INSERT INTO dates VALUES (1, '9999-12-31', '-838:59:59.999999', '9999-12-31 23:59:59.999999', '2038-01-19 08:44:07.999999', '2024-07-01 00:00:00', 2155),
  (2, '0000-00-00', '00:00:00', '0000-00-00 00:00:00', '1970-01-01 05:30:01', '0000-00-00 00:00:00', 0), (3, '2024-02-31', '-00:00:00.000001', '2024-00-00 00:00:00.000001', '2024-03-10 02:30:00', '1999-01-01', 1901),
  (4, NULL, NULL, NULL, NULL, '2030-01-01', NULL), (5, '1000-01-01', '838:59:59.999999', '0001-01-01 00:00:00', '0000-00-00 00:00:00', '2001-02-03 04:05:06', '2000');
SET time_zone = DEFAULT;
CREATE TABLE texts (id INT PRIMARY KEY, c CHAR(20), v VARCHAR(200), l1 VARCHAR(300) CHARACTER SET latin1, lt TEXT CHARACTER SET latin1, a VARCHAR(20) CHARACTER SET ascii, u2 VARCHAR(20) CHARACTER SET ucs2,
  u16 VARCHAR(20) CHARACTER SET utf16, u32 CHAR(9) CHARACTER SET utf32, u3 VARCHAR(20) CHARACTER SET utf8mb3, sj VARCHAR(20) CHARACTER SET sjis, gb VARCHAR(20) CHARACTER SET gbk, k8 VARCHAR(20) CHARACTER SET koi8r, b5 VARCHAR(20) CHARACTER SET big5,
  bin VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, tt TINYTEXT, mt MEDIUMTEXT, lo LONGTEXT, comp VARCHAR(1000) COMPRESSED);
INSERT INTO texts (id, c, v, l1, u2, u16, u32, sj, gb, k8, b5, bin, comp) VALUES (1, 'it''s', 'a"b`c\\d\0e\n\r\t\Z%_;--#/*', x'{latin}', x'0041D7FF0000', x'D83CDF890041', x'0001F389', x'815C5C7E', x'8140', x'C1C2FF', x'A440', 'A', REPEAT('compress me ', 80)),
  (2, '', '', '', '', '', '', '', '', '', '', 'a', ''), (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  (4, ' lead', 'trailing  ', 'NULL', 'N', '0', ' ', '\\', '''', '~', '?', 'ä', '''''');
UPDATE texts SET v = CONCAT(v, '🎉ünïcode 漢字 \u0000'), u3 = '漢字ü', lt = x'80FF00C3', a = x'41E94200', tt = '\'', mt = '\\\'', lo = '🎉' WHERE id = 1;
CREATE TABLE bytes (id INT PRIMARY KEY, b BINARY(6), vb VARBINARY(300), tb TINYBLOB, bl BLOB, mb MEDIUMBLOB, lb LONGBLOB, bc BLOB COMPRESSED);
INSERT INTO bytes VALUES (1, x'00', x'{all}', x'00', x'27225C0A0D001A', '', x'FF', REPEAT('z', 999)), (2, '', '', '', '', '', '', ''), (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL), (4, 'abc', ' ', 'N', '3:abc', '#', '1:#', x'00');
CREATE TABLE lists (id INT PRIMARY KEY, e ENUM('a','','ü','it''s','b,c'), e1 ENUM('x') CHARACTER SET latin1, s SET({members}), s2 SET('é','') CHARACTER SET latin1);
INSERT INTO lists VALUES (1, 'ü', 'x', 'm64', 'é'), (2, 0, 0, 18446744073709551615, 3), (3, '', '', '', ''), (4, NULL, NULL, NULL, NULL), (5, 'it''s', 'x', 'm1,m33,m64', 'é,'), (6, 'nonsense', 'y', 'm2', ''), (7, 2, 1, 0, 2);
CREATE TABLE special (id INT PRIMARY KEY, j JSON, g GEOMETRY, p POINT, ls LINESTRING, pg POLYGON, mp MULTIPOINT, gc GEOMETRYCOLLECTION, i6 INET6, i4 INET4, u UUID);
INSERT INTO special VALUES (1, '{{"a": [1, 2.50, "\\u00fc", null], "a": "🎉"}}', GeomFromText('POLYGON((0 0,1 0,1 1,0 0))', 4326), POINT(1.1, -2.2e-300), LineString(POINT(0,0),POINT(1,1)), GeomFromText('POLYGON((0 0,9 0,9 9,0 0),(1 1,2 1,2 2,1 1))'),
   GeomFromText('MULTIPOINT(1 1,2 2)'), GeomFromText('GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))'), '2001:db8::ff00:42:8329', '255.0.0.1', '123e4567-e89b-12d3-a456-426655440000'),
  (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL), (3, '"x"', POINT(0,0), POINT(0,0), NULL, NULL, NULL, GeomFromText('GEOMETRYCOLLECTION EMPTY'), '::ffff:1.2.3.4', '0.0.0.0', '00000000-0000-0000-0000-000000000000');
CREATE TABLE computed (id INT PRIMARY KEY, a INT, st INT AS (a * 2) STORED, vi INT AS (a + 1) VIRTUAL, j VARCHAR(50) AS (CONCAT('ü🎉', a)) STORED, inv INT INVISIBLE DEFAULT 7, de VARCHAR(50) DEFAULT (UPPER('x y')), ts DATETIME(3) DEFAULT CURRENT_TIMESTAMP(3), KEY (vi), UNIQUE KEY (st));
INSERT INTO computed (id, a, inv) VALUES (1, 10, 1), (2, NULL, NULL), (3, -5, 3);
CREATE TABLE checked (id INT PRIMARY KEY, n INT CHECK (n > 0), t VARCHAR(20) COMMENT 'why? it''s \\ "so" ünï', CONSTRAINT `odd ``name` CHECK (t <> 'bad''s' OR n = 3)) COMMENT='AUTO_INCREMENT=9 ; ''?''';
SET check_constraint_checks = 0; INSERT INTO checked VALUES (1, -1, 'x'), (2, 5, 'bad''s'); SET check_constraint_checks = 1;
CREATE TABLE no_key (a INT, b VARCHAR(10)); INSERT INTO no_key VALUES (1,'x'),(1,'x'),(1,'x'),(NULL,NULL),(NULL,NULL),(2,'a#'),(3,'x');
CREATE TABLE composite (a VARCHAR(20) COLLATE utf8mb4_bin, b INT, c VARBINARY(5), v INT, PRIMARY KEY (b, a, c), KEY desc_key (v DESC, b), UNIQUE KEY pre (a(3), c)); INSERT INTO composite VALUES ('A',1,x'00',1),('a',1,x'00',2),('a',2,x'0001',3),('b ',2,'',4);
CREATE TABLE prefixed (a VARCHAR(20), b INT, PRIMARY KEY (a(3), b)); INSERT INTO prefixed VALUES ('abcd', 1), ('abce', 2);
CREATE TABLE listed (e ENUM('b','a') PRIMARY KEY, f FLOAT); INSERT INTO listed VALUES ('a', 1), ('b', 2);
CREATE TABLE keyed (l VARCHAR(20) CHARACTER SET latin1, g VARCHAR(10) CHARACTER SET gbk, d DECIMAL(10,4), t TIMESTAMP(6), dt DATE, u UUID, i INET6, b BIGINT UNSIGNED, y YEAR, x VARBINARY(300), PRIMARY KEY (l, g, d, t, dt, u, i, b, y, x));
INSERT INTO keyed VALUES (x'E9', x'8140', -0.0001, '2024-01-01 00:00:00.000001', '0000-00-00', '123e4567-e89b-12d3-a456-426655440000', '::1', 18446744073709551615, 1999, x'00'), (x'E9', x'8140', -0.0001, '2024-01-01 00:00:00.000001', '0000-00-00', '123e4567-e89b-12d3-a456-426655440000', '::1', 18446744073709551615, 1999, ''),
  ('E ', '\\', 0, '2024-01-01', '2024-02-31', '00000000-0000-0000-0000-000000000000', '::', 0, 2155, x'27'), ('e''', '''', 0, '2024-01-01', '9999-12-31', 'ffffffff-ffff-ffff-ffff-ffffffffffff', 'ff::', 9, 0, x'5C00'), ('', '', -99999.9999, '2038-01-19 03:14:07', '1000-01-01', '00000000-0000-0000-0000-000000000001', '::2', 1, 2000, 'x'),
  ('\\', 'a', 99999.9999, '1970-01-01 00:00:01', '2024-01-01', '00000000-0000-0000-0000-000000000002', '::2', 1, 2000, 'y');
CREATE TABLE parts (id INT NOT NULL AUTO_INCREMENT, d DATE NOT NULL, v INT, PRIMARY KEY (id, d)) PARTITION BY RANGE (YEAR(d)) (PARTITION p0 VALUES LESS THAN (2000), PARTITION p1 VALUES LESS THAN MAXVALUE); INSERT INTO parts VALUES (0,'1999-01-01',1),(1,'2024-01-01',2);
CREATE TABLE hashed (id INT PRIMARY KEY, v INT) PARTITION BY HASH (id) PARTITIONS 3; INSERT INTO hashed VALUES (0,1),(1,2),(2,3),(5,4);
CREATE TABLE words (id INT PRIMARY KEY, t TEXT, g POINT NOT NULL, FULLTEXT KEY ft (t), SPATIAL KEY sp (g)); INSERT INTO words VALUES (1, 'the quick brown fox', POINT(1,2)), (2, 'jumps', POINT(0,0));
CREATE TABLE tree (id INT PRIMARY KEY AUTO_INCREMENT, parent INT, CONSTRAINT up FOREIGN KEY (parent) REFERENCES tree (id) ON DELETE CASCADE ON UPDATE SET NULL); SET foreign_key_checks = 0; INSERT INTO tree VALUES (0, NULL), (1, 2), (2, 1), (9, 0); SET foreign_key_checks = 1;
CREATE TABLE chicken (id INT PRIMARY KEY, egg INT NOT NULL); CREATE TABLE egg (id INT PRIMARY KEY, chicken INT NOT NULL, CONSTRAINT laid FOREIGN KEY (chicken) REFERENCES chicken (id)); ALTER TABLE chicken ADD CONSTRAINT hatched FOREIGN KEY (egg) REFERENCES egg (id);
SET foreign_key_checks = 0; INSERT INTO chicken VALUES (1, 1), (2, 2); INSERT INTO egg VALUES (1, 2), (2, 1); SET foreign_key_checks = 1;
CREATE TABLE `we``ird 'na"me' ü 漢;--` (`co``l 'x"y' ü` INT PRIMARY KEY, `select` VARCHAR(9), `a.b` INT, KEY `key ``of; it` (`select`)); INSERT INTO `we``ird 'na"me' ü 漢;--` VALUES (0, 'x', 1);
CREATE TABLE `UPPER` (id INT) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8; CREATE TABLE `upper` (id INT) ENGINE=InnoDB DEFAULT CHARSET=latin1 COLLATE=latin1_german1_ci ROW_FORMAT=REDUNDANT;
CREATE TABLE empty (id INT PRIMARY KEY AUTO_INCREMENT) AUTO_INCREMENT=777;
CREATE TABLE periods (id INT, a DATE, b DATE, PERIOD FOR valid (a, b), UNIQUE (id, valid WITHOUT OVERLAPS)); INSERT INTO periods VALUES (1,'2024-01-01','2024-02-01'),(1,'2024-02-01','2024-03-01');
"#,
        latin = "00017F8081A0C3A9E9FF275C",
        all = (0..=255).fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02X}");
            text
        }),
    )
}

#[tokio::test]
async fn every_column_type_survives_backup_and_load_value_by_value() {
    let bed = Bed::new(&hostile()).await;
    survives(&bed, &bed.database()).await;
}

/// Every key that can be an end of a range is one.
#[tokio::test]
async fn every_column_type_survives_where_each_row_is_a_chunk_of_its_own() {
    let bed = Bed::new(&hostile()).await;
    let mut root = bed.root().await;
    for table in query(&mut root, "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()").await {
        // The estimates say then that there is something to cut.
        let name = table["TABLE_NAME"].as_deref().expect("a table has a name").replace('`', "``");
        run(&mut root, &format!("ANALYZE TABLE `{name}`")).await;
    }
    let manifest = survives(&bed, &bed.database().with_chunk(1).with_connections(5)).await;
    let chunks = |name: &str| manifest.tables.iter().find(|table| table.name == name).expect("the table is there").chunks.len();
    let found = ["numbers", "composite", "keyed", "parts", "no_key", "prefixed", "listed"].map(|name| (name, chunks(name)));
    let expected = [("numbers", 5), ("composite", 5), ("keyed", 7), ("parts", 3), ("no_key", 1), ("prefixed", 1), ("listed", 1)];
    assert_eq!(found, expected, "a row each and the end, or the whole table");
}

async fn survives(bed: &Bed, database: &Database) -> Manifest {
    let manifest = bed.capture_with(database, "p1").await;
    let shadow = bed.beside("shadow");
    let loaded = load(database, &bed.store, &Path::from("p1"), &shadow).await.expect("the backup loads");
    assert_eq!(loaded.tables, 25);
    assert_eq!(loaded.rows, manifest.rows());

    let mut root = bed.root().await;
    for table in &manifest.tables {
        assert_same(&mut root, &bed.name, &shadow, &table.name).await;
        let there = checksum(&bed.database(), &shadow, &table.name).await.expect("the shadow's table can be summed");
        assert_eq!(there, table.sum(), "{}", table.name);
    }
    for (table, expected) in [("numbers", "5000"), ("empty", "777"), ("tree", "10")] {
        let sql =
            format!("SELECT AUTO_INCREMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA = '{shadow}' AND TABLE_NAME = '{table}'");
        assert_eq!(ask(&mut root, &sql).await, expected, "{table}");
    }
    let found = query(&mut root, &format!("SELECT id FROM `{shadow}`.words WHERE MATCH (t) AGAINST ('fox')")).await;
    assert_eq!(found.len(), 1, "the full-text index answers");
    manifest
}

/// Definition and every stored and computed value of a table in two schemas, the latter as hexadecimal of what is stored and as number.
async fn assert_same(root: &mut sqlx::MySqlConnection, here: &str, there: &str, table: &str) {
    let quoted = table.replace('`', "``");
    for schema in [here, there] {
        run(root, &format!("USE `{schema}`")).await;
    }
    let create = |schema: &str| format!("SHOW CREATE TABLE `{schema}`.`{quoted}`");
    let (a, b) = (query(root, &create(here)).await, query(root, &create(there)).await);
    assert_eq!(a[0]["Create Table"], b[0]["Create Table"]);

    let literal = table.replace('\\', "\\\\").replace('\'', "''");
    let columns = query(
        root,
        &format!(
            "SELECT COLUMN_NAME, DATA_TYPE FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = '{here}' AND TABLE_NAME = '{literal}'"
        ),
    )
    .await;
    let mut expressions = Vec::new();
    for column in columns {
        let name = format!("`{}`", column["COLUMN_NAME"].as_deref().expect("columns have names").replace('`', "``"));
        // HEX of a number would round it; of text, blobs, dates it shows the stored or exact printed bytes. ENUM and SET also by number.
        expressions.push(match column["DATA_TYPE"].as_deref().expect("columns have types") {
            "float" | "double" => format!("FORMAT({name}, 30), {name} * 1e0, ATAN2({name}, -1)"),
            "enum" | "set" | "bit" => format!("{name} + 0, HEX({name}), {name} IS NULL"),
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal" | "year" => format!("{name}, {name} + 0"),
            "date" | "datetime" | "timestamp" | "time" => format!("{name}, HEX(CAST({name} AS CHAR))"),
            _ => format!("HEX({name}), LENGTH({name}), {name} IS NULL"),
        });
    }
    let select = |schema: &str| format!("SELECT 0, {} FROM `{schema}`.`{quoted}`", expressions.join(", "));
    let rows = async |root: &mut sqlx::MySqlConnection, schema: &str| {
        let rows = sqlx::raw_sql(AssertSqlSafe(select(schema))).fetch_all(root).await.expect("the table can be read");
        let mut rows: Vec<Vec<Option<Vec<u8>>>> = rows
            .iter()
            .map(|row| (0..row.len()).map(|index| row.try_get_unchecked(index).expect("every value has bytes")).collect())
            .collect();
        rows.sort();
        rows
    };
    let (a, b) = (rows(root, here).await, rows(root, there).await);
    assert_eq!(a.len(), b.len(), "{table}");
    for (a, b) in a.iter().zip(&b) {
        assert_eq!(a, b, "{table}");
    }
}

#[tokio::test]
async fn floats_keep_every_bit_of_the_binary_protocol() {
    let bed = Bed::new("CREATE TABLE f (id INT PRIMARY KEY, f FLOAT, d DOUBLE)").await;
    let mut root = bed.root().await;
    let mut expected = Vec::new();
    // A walk over the bit patterns: every exponent, many mantissas, both signs; infinities and NaN can't be stored.
    let (mut f_bits, mut d_bits) = (1_u32, 1_u64);
    for id in 0..2000_i32 {
        f_bits = f_bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        d_bits = d_bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (f, d) = (f32::from_bits(f_bits), f64::from_bits(d_bits));
        if f.is_finite() && d.is_finite() {
            expected.push((id, f, d));
        }
    }
    expected.push((5000, -0.0, -0.0));
    expected.push((5001, f32::from_bits(1), f64::from_bits(1)));
    for (id, f, d) in &expected {
        sqlx::query("INSERT INTO f VALUES (?, ?, ?)").bind(id).bind(f).bind(d).execute(&mut root).await.expect("the value is stored");
    }
    let before = bits(&mut root, &bed.name).await;
    // The server stores -0.0 as 0.0; everything else as it came.
    let stored: Vec<(i32, u32, u64)> = expected.iter().map(|(id, f, d)| (*id, (f + 0.0).to_bits(), (d + 0.0).to_bits())).collect();
    assert_eq!(before, stored);
    bed.capture("p1").await;
    load(&bed.database(), &bed.store, &Path::from("p1"), &bed.beside("shadow")).await.expect("the backup loads");
    assert_eq!(bits(&mut root, &bed.beside("shadow")).await, before);
}

async fn bits(root: &mut sqlx::MySqlConnection, schema: &str) -> Vec<(i32, u32, u64)> {
    let rows = sqlx::query(AssertSqlSafe(format!("SELECT id, f, d FROM `{schema}`.f ORDER BY id")))
        .fetch_all(root)
        .await
        .expect("the table can be read");
    rows.iter().map(|row| (row.get::<i32, _>(0), row.get::<f32, _>(1).to_bits(), row.get::<f64, _>(2).to_bits())).collect()
}

#[tokio::test]
async fn rows_as_long_as_the_server_takes_survive() {
    let bed = Bed::new(
        "CREATE TABLE big (id INT PRIMARY KEY, t LONGTEXT, b LONGBLOB, l LONGTEXT CHARACTER SET latin1, c LONGTEXT COLLATE utf8mb4_bin); \
         INSERT INTO big (id, b) VALUES (0, 'short'); \
         INSERT INTO big (id, t) VALUES (1, REPEAT('🎉', 4194304)); \
         INSERT INTO big (id) VALUES (2); UPDATE big SET b = REPEAT(x'00FF27', 5592405) WHERE id = 2; UPDATE big SET l = REPEAT(x'E9', 16777216) WHERE id = 2; \
         UPDATE big SET t = REPEAT('x', 16777216), c = REPEAT('ü', 1000) WHERE id = 2; INSERT INTO big (id, b) VALUES (3, 'short again')",
    )
    .await;
    let manifest = bed.capture("p1").await;
    assert_eq!(manifest.tables[0].longest_value, 16_777_216);
    assert!(manifest.tables[0].longest_statement < 2_000_000, "{}", manifest.tables[0].longest_statement);
    load(&bed.database(), &bed.store, &Path::from("p1"), &bed.beside("shadow")).await.expect("the backup loads");
    let mut root = bed.root().await;
    let sums = |schema: &str| {
        format!(
            "SELECT GROUP_CONCAT(CONCAT_WS(',', id, LENGTH(t), SHA1(t), LENGTH(b), SHA1(b), LENGTH(l), SHA1(l), SHA1(c)) ORDER BY id) FROM `{schema}`.big"
        )
    };
    assert_eq!(ask(&mut root, &sums(&bed.beside("shadow"))).await, ask(&mut root, &sums(&bed.name)).await);
}
