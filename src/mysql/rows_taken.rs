//! What DELETE, UPDATE, REPLACE and INSERT take away, read by sqlparser. Pure.
//!
//! A condition is passed on only if it means the same in a query of its own: columns of the one table, literals, operators and a few
//! functions whose value depends on nothing else. It is printed anew from what was understood. Any other condition counts as none,
//! which makes the whole table what may be lost.

use sqlparser::ast::{
    AssignmentTarget, BinaryOperator, Delete, Expr, FromTable, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, InTarget,
    Insert, ObjectName, Query, SetExpr, Statement, TableFactor, TableObject, TableWithJoins, UnaryOperator, Update, Value,
};
use sqlparser::dialect::MySqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::destruction::{Names, TableName, Takes, Verb, word_at};
use super::ident::{literal, quote};

/// Functions of their arguments alone.
const PURE: [&str; 18] = [
    "LOWER",
    "UPPER",
    "LCASE",
    "UCASE",
    "LENGTH",
    "CHAR_LENGTH",
    "COALESCE",
    "IFNULL",
    "NULLIF",
    "ABS",
    "MOD",
    "SIGN",
    "ROUND",
    "CONCAT",
    "DATE",
    "YEAR",
    "MONTH",
    "DAY",
];
/// Words after the verb that change nothing about which rows are meant, and that the parser does not know everywhere.
const MODIFIERS: [&str; 5] = ["LOW_PRIORITY", "HIGH_PRIORITY", "DELAYED", "QUICK", "IGNORE"];

/// What a data statement takes, or why that can't be told.
pub(super) fn of(mut tokens: Vec<Token>, names: &Names) -> Result<Vec<Takes>, String> {
    while MODIFIERS.contains(&word_at(&tokens, 1).as_str()) {
        tokens.remove(1);
    }
    let dialect = MySqlDialect {};
    let mut parser = Parser::new(&dialect).with_tokens(tokens);
    let statement = parser.parse_statement().map_err(|error| error.to_string())?;
    if parser.peek_token().token != Token::EOF {
        return Err(format!("it is not known what this does: {}", parser.peek_token().token));
    }
    match statement {
        Statement::Delete(delete) => deleted(&delete, names),
        Statement::Update(update) => updated(&update, names),
        Statement::Insert(insert) => inserted(&insert, names),
        Statement::Query(query) if only_reads(&query) => Ok(Vec::new()),
        _ => Err("it is not known to be harmless".to_owned()),
    }
}

fn deleted(delete: &Delete, names: &Names) -> Result<Vec<Takes>, String> {
    let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
    if let (true, None, [single]) = (delete.tables.is_empty(), &delete.using, from.as_slice())
        && single.joins.is_empty()
    {
        return Ok(vec![rows(&Target::of(&single.relation)?, Verb::Delete, delete.selection.as_ref(), names)?]);
    }
    // `DELETE a FROM a JOIN b …` and `DELETE FROM a USING a JOIN b …`: the targets may be aliases of what is joined.
    let (targets, joined) = match &delete.using {
        Some(using) => (from.iter().map(|table| Target::of(&table.relation)).collect::<Result<Vec<_>, _>>()?, all(using)?),
        None => {
            let named = |name: &ObjectName| Ok(Target { table: table_name(name)?, alias: None });
            (delete.tables.iter().map(named).collect::<Result<Vec<_>, String>>()?, all(from)?)
        }
    };
    targets
        .iter()
        .map(|target| {
            let meant = joined.iter().find(|joined| target.table.schema.is_none() && joined.name() == target.table.table);
            let meant = meant.or_else(|| joined.iter().find(|joined| joined.table == target.table));
            let meant = meant.ok_or_else(|| format!("{} is none of the joined tables", target.table))?;
            rows(meant, Verb::Delete, None, names)
        })
        .collect()
}

fn updated(update: &Update, names: &Names) -> Result<Vec<Takes>, String> {
    if update.from.is_some() {
        return Err("UPDATE … FROM is not known".to_owned());
    }
    if update.table.joins.is_empty() {
        return Ok(vec![rows(&Target::of(&update.table.relation)?, Verb::Update, update.selection.as_ref(), names)?]);
    }
    // Which of the joined tables a column belongs to is not known here: where the name does not say it, it may be any.
    let joined = all(std::slice::from_ref(&update.table))?;
    let mut taken = Vec::new();
    for target in &joined {
        let is_assigned = update.assignments.iter().any(|assignment| match &assignment.target {
            AssignmentTarget::ColumnName(name) => match name.0.as_slice() {
                [_, .., table, _] | [table, _] => table.as_ident().is_none_or(|table| table.value.eq_ignore_ascii_case(target.name())),
                _ => true,
            },
            AssignmentTarget::Tuple(_) => true,
        });
        if is_assigned {
            taken.push(rows(target, Verb::Update, None, names)?);
        }
    }
    if taken.is_empty() { Err("none of the joined tables is assigned to".to_owned()) } else { Ok(taken) }
}

fn inserted(insert: &Insert, names: &Names) -> Result<Vec<Takes>, String> {
    let verb = match (insert.replace_into, &insert.on) {
        (true, _) => Verb::Replace,
        (false, Some(_)) => Verb::Update,
        (false, None) if insert.overwrite || insert.or.is_some() => return Err("it is not known to be harmless".to_owned()),
        (false, None) if insert.source.as_ref().is_some_and(|query| !only_reads(query)) => {
            return Err("what it inserts does more than to read".to_owned());
        }
        (false, None) => return Ok(Vec::new()),
    };
    let TableObject::TableName(name) = &insert.table else { return Err("its table is not a name".to_owned()) };
    Ok(vec![rows(&Target { table: table_name(name)?, alias: None }, verb, None, names)?])
}

fn rows(target: &Target, verb: Verb, selection: Option<&Expr>, names: &Names) -> Result<Takes, String> {
    let table = names.table(&target.table)?;
    let condition = selection.filter(|_| names.trusts_conditions_on(&table)).and_then(|selection| print(selection, target));
    Ok(Takes::Rows { table, verb, condition })
}

/// A table in a statement, and what the statement calls it.
struct Target {
    table: TableName,
    alias: Option<String>,
}

impl Target {
    fn of(relation: &TableFactor) -> Result<Self, String> {
        let TableFactor::Table { name, alias, args: None, .. } = relation else { return Err(format!("{relation} is no table")) };
        Ok(Self { table: table_name(name)?, alias: alias.as_ref().map(|alias| ident(&alias.name)) })
    }

    fn name(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.table.table)
    }
}

fn all(tables: &[TableWithJoins]) -> Result<Vec<Target>, String> {
    let relations = tables.iter().flat_map(|table| std::iter::once(&table.relation).chain(table.joins.iter().map(|join| &join.relation)));
    // A subquery can be joined, but not be the target.
    Ok(relations.filter_map(|relation| Target::of(relation).ok()).collect())
}

fn table_name(name: &ObjectName) -> Result<TableName, String> {
    let parts: Option<Vec<String>> = name.0.iter().map(|part| part.as_ident().map(ident)).collect();
    match parts.unwrap_or_default().as_slice() {
        [table] => Ok(TableName { schema: None, table: table.clone() }),
        [schema, table] => Ok(TableName { schema: Some(schema.clone()), table: table.clone() }),
        _ => Err(format!("{name} is no table's name")),
    }
}

/// Quoted names come with their doubled backticks.
fn ident(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.replace("``", "`") } else { ident.value.clone() }
}

fn only_reads(query: &Query) -> bool {
    let with = query.with.as_ref().is_none_or(|with| with.cte_tables.iter().all(|table| only_reads(&table.query)));
    with && body_only_reads(&query.body)
}

fn body_only_reads(body: &SetExpr) -> bool {
    match body {
        SetExpr::Select(_) | SetExpr::Values(_) | SetExpr::Table(_) => true,
        SetExpr::Query(query) => only_reads(query),
        SetExpr::SetOperation { left, right, .. } => body_only_reads(left) && body_only_reads(right),
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => false,
    }
}

/// The condition in the engine's own quoting, for a query that has `target` as its only table; `None` if anything in it is not known to
/// mean the same there.
fn print(expr: &Expr, target: &Target) -> Option<String> {
    let again = |expr: &Expr| print(expr, target);
    let list = |list: &[Expr]| list.iter().map(again).collect::<Option<Vec<_>>>().map(|list| list.join(", "));
    let not = |negated: &bool| if *negated { "NOT " } else { "" };
    Some(match expr {
        Expr::Identifier(name) => column(name)?,
        Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [table, name] if ident(table) == target.name() => column(name)?,
            _ => return None,
        },
        Expr::Value(value) => value_text(&value.value)?,
        Expr::Nested(inner) => format!("({})", again(inner)?),
        Expr::IsNull(inner) => format!("{} IS NULL", again(inner)?),
        Expr::IsNotNull(inner) => format!("{} IS NOT NULL", again(inner)?),
        Expr::IsTrue(inner) => format!("{} IS TRUE", again(inner)?),
        Expr::IsFalse(inner) => format!("{} IS FALSE", again(inner)?),
        Expr::IsNotTrue(inner) => format!("{} IS NOT TRUE", again(inner)?),
        Expr::IsNotFalse(inner) => format!("{} IS NOT FALSE", again(inner)?),
        Expr::In { expr, target: InTarget::List(values), negated, global: false } => {
            format!("{} {}IN ({})", again(expr)?, not(negated), list(values)?)
        }
        Expr::Between { expr, negated, low, high } => {
            format!("{} {}BETWEEN {} AND {}", again(expr)?, not(negated), again(low)?, again(high)?)
        }
        Expr::Like { negated, any: false, expr, pattern, escape_char: None } => {
            format!("{} {}LIKE {}", again(expr)?, not(negated), again(pattern)?)
        }
        // Without parentheses of its own: the server puts the same words together as the parser took apart.
        Expr::BinaryOp { left, op, right } => format!("{} {} {}", again(left)?, operator(op)?, again(right)?),
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => format!("NOT {}", again(expr)?),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => format!("- {}", again(expr)?),
        Expr::UnaryOp { op: UnaryOperator::Plus, expr } => format!("+ {}", again(expr)?),
        Expr::Function(function) => call(function, target)?,
        _ => return None,
    })
}

fn column(name: &Ident) -> Option<String> {
    // A variable of the session is unset in another one.
    if name.value.starts_with('@') || !matches!(name.quote_style, None | Some('`')) { None } else { Some(quote(&ident(name))) }
}

fn value_text(value: &Value) -> Option<String> {
    match value {
        Value::Number(digits, false) if digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-')) => {
            Some(digits.clone())
        }
        // What an escape stands for depends on more than the text.
        Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) if !text.contains(['\\', '\'', '"']) => Some(literal(text)),
        // Hexadecimal is left out: the server reads 0x1f and x'1f' differently, the parser does not say which it was.
        Value::Boolean(true) => Some("TRUE".to_owned()),
        Value::Boolean(false) => Some("FALSE".to_owned()),
        Value::Null => Some("NULL".to_owned()),
        _ => None,
    }
}

fn operator(op: &BinaryOperator) -> Option<&'static str> {
    Some(match op {
        BinaryOperator::Plus => "+",
        BinaryOperator::Minus => "-",
        BinaryOperator::Multiply => "*",
        BinaryOperator::Divide => "/",
        BinaryOperator::Modulo => "%",
        BinaryOperator::MyIntegerDivide => "DIV",
        BinaryOperator::Gt => ">",
        BinaryOperator::Lt => "<",
        BinaryOperator::GtEq => ">=",
        BinaryOperator::LtEq => "<=",
        BinaryOperator::Spaceship => "<=>",
        BinaryOperator::Eq => "=",
        BinaryOperator::NotEq => "<>",
        BinaryOperator::And => "AND",
        BinaryOperator::Or => "OR",
        BinaryOperator::Xor => "XOR",
        BinaryOperator::BitwiseOr => "|",
        BinaryOperator::BitwiseAnd => "&",
        BinaryOperator::BitwiseXor => "^",
        _ => return None,
    })
}

fn call(function: &Function, target: &Target) -> Option<String> {
    let [part] = function.name.0.as_slice() else { return None };
    let name = part.as_ident().filter(|name| name.quote_style.is_none())?.value.to_ascii_uppercase();
    let FunctionArguments::List(arguments) = &function.args else { return None };
    let plain = PURE.contains(&name.as_str())
        && arguments.clauses.is_empty()
        && arguments.duplicate_treatment.is_none()
        && function.over.is_none()
        && function.filter.is_none();
    if !plain {
        return None;
    }
    let printed = arguments.args.iter().map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => print(expr, target),
        _ => None,
    });
    Some(format!("{name}({})", printed.collect::<Option<Vec<_>>>()?.join(", ")))
}
