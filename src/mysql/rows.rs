//! How a value becomes text that makes the same value again, for every column type.
//!
//! What the server prints is not always what it stores: FLOAT shows six digits, BIT shows bytes, strings are converted to the connection's
//! character set. So each column is read by an expression, and the row query runs with `character_set_results` off, which gives the stored
//! bytes of every string.

use super::chunk::{Key, Range};
use super::ident::{quote, quote_all};
use super::inspect::{Column, Content, Table, Versions};

/// A statement grows to about this many bytes. Larger ones load no faster; smaller ones leave room below the server's
/// `max_allowed_packet` (16 MiB unless set, 1 MiB on old servers).
const STATEMENT_BYTES: usize = 512 * 1024;
/// A row with more bytes than this is written by way of user variables: in hexadecimal it could exceed `max_allowed_packet`.
const LONG_ROW_BYTES: usize = 256 * 1024;
/// In a long row, values up to this size stay in the statement: the widest table has 1017 columns, so it stays below 9 MiB.
const LONG_ROW_INLINE_BYTES: usize = 4 * 1024;
/// Raw bytes in one piece of a long value.
const PIECE_BYTES: usize = 256 * 1024;

/// Until when a row of the present holds: by MariaDB up to 11.4, and from 11.5 on.
const PRESENT: &str = "TIMESTAMP'2038-01-19 03:14:07.999999',TIMESTAMP'2106-02-07 06:28:15.999999'";

/// How the values of a column are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Whole and decimal numbers: as printed.
    Number,
    /// Every bit of a FLOAT is in the text of its DOUBLE.
    Float,
    Double,
    /// BIT, ENUM, SET: by number. An ENUM's error value is 0, which no string stands for.
    Ordinal,
    /// The last of the times for which a row of a system-versioned table holds; nothing for the present, which other servers have another
    /// latest time for.
    Until,
    /// Types with one exact text form: dates, times, UUID, INET4, INET6.
    Quoted,
    /// Bytes up to 64 KiB for the whole row: CHAR, VARCHAR, BINARY, VARBINARY.
    Short(Plain),
    /// Bytes without such a bound: TEXT, BLOB, JSON, geometry (in the server's own form: four bytes of SRID, then WKB).
    Long(Plain),
}

/// Whether harmless ASCII may be written as it is, which makes the file shorter and readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plain {
    /// In this character set an ASCII character is the same single byte.
    Ascii,
    HexOnly,
}

impl Encoding {
    /// `None` for a type this engine does not know.
    pub fn of(column: &Column) -> Option<Self> {
        if column.content == Content::Until {
            return Some(Self::Until);
        }
        let plain = match column.charset.as_deref() {
            Some("utf8mb4" | "utf8mb3" | "utf8" | "latin1" | "ascii") => Plain::Ascii,
            _ => Plain::HexOnly,
        };
        Some(match column.data_type.as_str() {
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal" => Self::Number,
            "float" => Self::Float,
            "double" => Self::Double,
            "bit" | "enum" | "set" => Self::Ordinal,
            "date" | "time" | "datetime" | "timestamp" | "year" | "uuid" | "inet4" | "inet6" => Self::Quoted,
            "char" | "varchar" | "binary" | "varbinary" => Self::Short(plain),
            "tinytext" | "text" | "mediumtext" | "longtext" | "tinyblob" | "blob" | "mediumblob" | "longblob" | "json" => Self::Long(plain),
            "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon" | "geometrycollection"
            | "geomcollection" => Self::Long(Plain::HexOnly),
            _ => return None,
        })
    }

    /// The expression whose text is the exact value.
    fn select(self, column: &str) -> String {
        match self {
            Self::Float => format!("CAST({column} AS DOUBLE)"),
            Self::Ordinal => format!("CAST({column} AS UNSIGNED)"),
            Self::Until => format!("IF({column} IN ({PRESENT}),'',{column})"),
            Self::Number | Self::Double | Self::Quoted | Self::Short(_) | Self::Long(_) => column.to_owned(),
        }
    }

    /// The expression whose text stands for the value in the checksum: never NULL, and unambiguous beside its neighbours.
    fn digest(self, column: &str) -> String {
        match self {
            Self::Number | Self::Float | Self::Double | Self::Ordinal | Self::Until | Self::Quoted => {
                format!("IFNULL(CAST({} AS CHAR),'N')", self.select(column))
            }
            // With its length, so that 'a#','b' differs from 'a','#b'.
            Self::Short(_) => format!("IFNULL(CONCAT(LENGTH({column}),':',CAST({column} AS BINARY)),'N')"),
            // A string function gives NULL beyond max_allowed_packet, and a NULL would silently leave the row out.
            Self::Long(_) => format!("IFNULL(CONCAT(LENGTH({column}),':',MD5({column})),'N')"),
        }
    }

    fn write(self, value: &[u8], statement: &mut Vec<u8>) {
        match self {
            Self::Number | Self::Ordinal => statement.extend_from_slice(value),
            Self::Float | Self::Double => {
                statement.extend_from_slice(value);
                // Without an exponent the server reads a DECIMAL first.
                if !value.contains(&b'e') {
                    statement.extend_from_slice(b"e0");
                }
            }
            Self::Until if value.is_empty() => statement.extend_from_slice(b"DEFAULT"),
            Self::Until | Self::Quoted => {
                statement.push(b'\'');
                statement.extend_from_slice(value);
                statement.push(b'\'');
            }
            Self::Short(Plain::Ascii) | Self::Long(Plain::Ascii) if value.iter().all(|byte| is_harmless(*byte)) => {
                statement.push(b'\'');
                statement.extend_from_slice(value);
                statement.push(b'\'');
            }
            Self::Short(_) | Self::Long(_) => write_hex(value, statement),
        }
    }
}

/// Printable ASCII that needs no escape in any `sql_mode`.
fn is_harmless(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'\'' && byte != b'\\'
}

/// A binary literal: whatever column it is put in takes the bytes as they are, without conversion.
fn write_hex(value: &[u8], statement: &mut Vec<u8>) {
    statement.extend_from_slice(b"x'");
    statement.extend_from_slice(hex::encode(value).as_bytes());
    statement.push(b'\'');
}

/// The columns of a table that are backed up, with the ways to read, write and sum them.
pub(super) struct Shape {
    table: String,
    fields: Vec<(String, Encoding)>,
    key: Vec<String>,
    versions: &'static str,
}

impl Shape {
    /// Leaves out generated columns. Columns of unknown type were refused before.
    pub fn of(table: &Table) -> Self {
        let fields = table
            .columns
            .iter()
            .filter(|column| column.content != Content::Generated)
            .filter_map(|column| Some((column.name.clone(), Encoding::of(column)?)))
            .collect();
        Self { table: table.name.clone(), fields, key: table.key.clone(), versions: table.versions(Versions::All) }
    }

    /// The rows of a range, those of the past included, each with the CRC32 of its [`Shape::digest`] behind its columns; in the order of the
    /// primary key where there is one: so they load fastest.
    /// The leading 0 is needed: the client takes a row that begins with a very long value for the end of the rows.
    pub fn select(&self, range: &Range, key: Option<&Key>) -> String {
        let named = |name: &String| format!("`t`.{}", quote(name));
        let columns: String = self.fields.iter().map(|(name, encoding)| format!(",{}", encoding.select(&named(name)))).collect();
        let index = if self.key.is_empty() { "" } else { " FORCE INDEX (PRIMARY)" };
        let order = key.map(|key| key.order("t")).unwrap_or_default();
        let clause = range.clause(&self.key, "t");
        format!("SELECT 0{columns},CRC32({}) FROM {}{} AS `t`{index}{clause}{order}", self.digest("t"), quote(&self.table), self.versions)
    }

    /// How many columns [`Shape::select`] has between the 0 and the CRC32.
    pub fn width(&self) -> usize {
        self.fields.len()
    }

    /// Where the key's columns are among them.
    pub fn places(&self, key: &Key) -> Vec<usize> {
        key.columns.iter().filter_map(|column| self.fields.iter().position(|(name, _)| name == column)).collect()
    }

    /// One text for a row of the table called `alias`, the same for the same content in any schema.
    pub fn digest(&self, alias: &str) -> String {
        digest(self.fields.iter().map(|(name, encoding)| (name.as_str(), *encoding)), alias)
    }

    fn insert(&self) -> String {
        format!("INSERT INTO {} ({}) VALUES ", quote(&self.table), quote_all(self.fields.iter().map(|(name, _)| name.as_str())))
    }
}

/// [`Shape::digest`] for a choice of columns.
pub(super) fn digest<'a>(fields: impl IntoIterator<Item = (&'a str, Encoding)>, alias: &str) -> String {
    let fields: String =
        fields.into_iter().map(|(name, encoding)| format!(",{}", encoding.digest(&format!("{}.{}", quote(alias), quote(name))))).collect();
    // Starts with a constant, so that a table without stored columns has a text too.
    format!("CONCAT_WS('#','r'{fields})")
}

/// Turns rows into lines of SQL, one statement a line.
pub(super) struct Writer {
    shape: Shape,
    insert: String,
    statement: Vec<u8>,
    /// The longest line and the longest single value so far, in bytes.
    pub longest_statement: u64,
    pub longest_value: u64,
}

impl Writer {
    pub fn new(shape: Shape) -> Self {
        let insert = shape.insert();
        Self { shape, insert, statement: Vec::with_capacity(STATEMENT_BYTES * 2), longest_statement: 0, longest_value: 0 }
    }

    /// Adds a row (`values` in the order of [`Shape::select`], without the leading 0) and appends finished lines to `out`.
    pub fn push(&mut self, values: &[Option<&[u8]>], out: &mut Vec<u8>) {
        let size: usize = values.iter().flatten().map(|value| value.len()).sum();
        let longest = values.iter().flatten().map(|value| value.len()).max().unwrap_or(0);
        self.longest_value = self.longest_value.max(longest as u64);
        if size > LONG_ROW_BYTES {
            self.push_long(values, out);
            return;
        }
        if self.statement.len() > STATEMENT_BYTES {
            self.finish(out);
        }
        if self.statement.is_empty() {
            self.statement.extend_from_slice(self.insert.as_bytes());
        } else {
            self.statement.push(b',');
        }
        self.statement.push(b'(');
        for (index, ((_, encoding), value)) in self.shape.fields.iter().zip(values).enumerate() {
            if index > 0 {
                self.statement.push(b',');
            }
            match value {
                Some(value) => encoding.write(value, &mut self.statement),
                None => self.statement.extend_from_slice(b"NULL"),
            }
        }
        self.statement.push(b')');
    }

    /// Ends the statement at hand.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if self.statement.is_empty() {
            return;
        }
        let statement = std::mem::take(&mut self.statement);
        self.line(&statement, out);
        self.statement = statement;
        self.statement.clear();
    }

    /// Each long value comes in pieces, in user variables. `CONCAT` of binary strings and the assignment to the column keep the bytes.
    fn push_long(&mut self, values: &[Option<&[u8]>], out: &mut Vec<u8>) {
        self.finish(out);
        let mut row = self.insert.clone().into_bytes();
        row.push(b'(');
        let mut variables = Vec::new();
        let fields: Vec<Encoding> = self.shape.fields.iter().map(|(_, encoding)| *encoding).collect();
        for (index, (encoding, value)) in fields.into_iter().zip(values).enumerate() {
            if index > 0 {
                row.push(b',');
            }
            match value {
                None => row.extend_from_slice(b"NULL"),
                Some(value) if value.len() <= LONG_ROW_INLINE_BYTES => encoding.write(value, &mut row),
                Some(value) => {
                    // One variable a piece, put together once: adding to a variable copies all of it each time.
                    let mut pieces = Vec::new();
                    for (piece, bytes) in value.chunks(PIECE_BYTES).enumerate() {
                        let variable = format!("@backout_{index}_{piece}");
                        let mut set = format!("SET {variable}=").into_bytes();
                        write_hex(bytes, &mut set);
                        self.line(&set, out);
                        pieces.push(variable);
                    }
                    row.extend_from_slice(format!("CONCAT({})", pieces.join(",")).as_bytes());
                    variables.extend(pieces.into_iter().map(|variable| format!("{variable}=NULL")));
                }
            }
        }
        row.push(b')');
        self.line(&row, out);
        if !variables.is_empty() {
            self.line(format!("SET {}", variables.join(",")).as_bytes(), out);
        }
    }

    fn line(&mut self, statement: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(statement);
        out.extend_from_slice(b";\n");
        self.longest_statement = self.longest_statement.max(statement.len() as u64 + 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(encoding: Encoding, value: &[u8]) -> String {
        let mut statement = Vec::new();
        encoding.write(value, &mut statement);
        String::from_utf8(statement).expect("statements are ASCII here")
    }

    #[test]
    fn values_are_written_exactly() {
        for (encoding, value, expected) in [
            (Encoding::Number, &b"-12.50"[..], "-12.50"),
            (Encoding::Double, b"0.1", "0.1e0"),
            (Encoding::Double, b"5e-324", "5e-324"),
            (Encoding::Ordinal, b"0", "0"),
            (Encoding::Quoted, b"-838:59:59.999999", "'-838:59:59.999999'"),
            (Encoding::Short(Plain::Ascii), b"BTC", "'BTC'"),
            (Encoding::Short(Plain::Ascii), b"", "''"),
            (Encoding::Short(Plain::Ascii), b"it's", "x'69742773'"),
            (Encoding::Short(Plain::Ascii), b"a\\", "x'615c'"),
            (Encoding::Short(Plain::HexOnly), b"BTC", "x'425443'"),
            (Encoding::Long(Plain::HexOnly), b"", "x''"),
        ] {
            assert_eq!(written(encoding, value), expected);
        }
    }

    #[test]
    fn a_long_value_is_put_together_from_pieces() {
        let shape = Shape {
            table: "t".into(),
            fields: vec![("id".into(), Encoding::Number), ("b".into(), Encoding::Long(Plain::HexOnly))],
            key: vec![],
            versions: "",
        };
        let mut writer = Writer::new(shape);
        let mut out = Vec::new();
        let long = vec![0_u8; PIECE_BYTES + 1];
        writer.push(&[Some(b"1"), Some(b"\x01")], &mut out);
        writer.push(&[Some(b"2"), Some(&long)], &mut out);
        writer.push(&[Some(b"3"), None], &mut out);
        writer.finish(&mut out);
        let text = String::from_utf8(out).expect("statements are ASCII here");
        let lines: Vec<&str> = text.lines().map(|line| line.get(..60).unwrap_or(line)).collect();
        assert_eq!(
            lines,
            [
                "INSERT INTO `t` (`id`,`b`) VALUES (1,x'01');",
                "SET @backout_1_0=x'00000000000000000000000000000000000000000",
                "SET @backout_1_1=x'00';",
                "INSERT INTO `t` (`id`,`b`) VALUES (2,CONCAT(@backout_1_0,@ba",
                "SET @backout_1_0=NULL,@backout_1_1=NULL;",
                "INSERT INTO `t` (`id`,`b`) VALUES (3,NULL);",
            ]
        );
        assert_eq!(writer.longest_value, PIECE_BYTES as u64 + 1);
    }
}
