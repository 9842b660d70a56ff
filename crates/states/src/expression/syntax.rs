//! Checks on an expression that need no values: what it reads, and that it calls no `$eval`.

use std::collections::BTreeSet;

use jsonata_core::ast::{AstNode, PathStep, Stage};

/// Fields of `$states`: those that an expression reads, or those that a place has.
///
/// <https://docs.aws.amazon.com/step-functions/latest/dg/transforming-data.html#transforming-reserved-states-variable>
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StatesFields {
    pub(crate) input: bool,
    pub(crate) result: bool,
    pub(crate) error_output: bool,
    pub(crate) context: bool,
}

impl StatesFields {
    /// Where there is neither a result nor an error.
    pub(crate) const INPUT: Self =
        Self { input: true, result: false, error_output: false, context: true };
    /// Where a result is there.
    pub(crate) const RESULT: Self = Self { result: true, ..Self::INPUT };
    /// Where an error was caught.
    pub(crate) const ERROR: Self = Self { error_output: true, ..Self::INPUT };

    pub(crate) fn with(self, other: Self) -> Self {
        Self {
            input: self.input || other.input,
            result: self.result || other.result,
            error_output: self.error_output || other.error_output,
            context: self.context || other.context,
        }
    }

    fn add(&mut self, name: &str, allowed: Self) -> Result<(), String> {
        let (field, is_allowed) = match name {
            "input" => (&mut self.input, allowed.input),
            "result" => (&mut self.result, allowed.result),
            "errorOutput" => (&mut self.error_output, allowed.error_output),
            "context" => (&mut self.context, allowed.context),
            _ => return Err(format!("$states has no field {name:?}")),
        };
        if !is_allowed {
            return Err(format!("$states.{name} is not available in this field"));
        }
        *field = true;
        Ok(())
    }
}

/// What an expression reads.
#[derive(Debug)]
pub(super) struct Reads {
    pub(super) states: StatesFields,
    /// The names of variables; those that the expression itself binds are among them.
    pub(super) variables: BTreeSet<String>,
}

/// Walks the whole expression, with a stack of its own because expressions may be deep.
pub(super) fn check(ast: &AstNode, allowed: StatesFields) -> Result<Reads, String> {
    let mut states = StatesFields::default();
    let mut variables = BTreeSet::new();
    let mut pending = vec![ast];
    while let Some(node) = pending.pop() {
        match node {
            AstNode::Path { steps } => {
                if let Some(name) = states_field(steps) {
                    states.add(name, allowed)?;
                    // The variable itself is dealt with; its predicates are not.
                    steps.iter().take(1).for_each(|step| push_stages(step, &mut pending));
                    steps.iter().skip(1).for_each(|step| push_step(step, &mut pending));
                } else {
                    steps.iter().for_each(|step| push_step(step, &mut pending));
                }
            }
            AstNode::Variable(name) if name == "states" => states = states.with(allowed),
            AstNode::Variable(name) | AstNode::Function { name, is_builtin: true, .. }
                if name == "eval" =>
            {
                return Err("$eval is not supported".to_owned());
            }
            AstNode::Variable(name) => {
                variables.insert(name.clone());
            }
            _ => push_children(node, &mut pending),
        }
    }
    Ok(Reads { states, variables })
}

/// The field, where a path begins with `$states.<field>`.
fn states_field(steps: &[PathStep]) -> Option<&str> {
    match steps {
        [
            PathStep { node: AstNode::Variable(variable), .. },
            PathStep { node: AstNode::Name(field), .. },
            ..,
        ] if variable == "states" => Some(field),
        _ => None,
    }
}

fn push_step<'a>(step: &'a PathStep, pending: &mut Vec<&'a AstNode>) {
    pending.push(&step.node);
    push_stages(step, pending);
}

fn push_stages<'a>(step: &'a PathStep, pending: &mut Vec<&'a AstNode>) {
    pending.extend(step.stages.iter().filter_map(|stage| match stage {
        Stage::Filter(predicate) => Some(&**predicate),
        Stage::KeepArray | Stage::Index(_) => None,
    }));
}

fn push_children<'a>(node: &'a AstNode, pending: &mut Vec<&'a AstNode>) {
    match node {
        AstNode::String(_)
        | AstNode::Name(_)
        | AstNode::Number(_)
        | AstNode::Boolean(_)
        | AstNode::Null
        | AstNode::Undefined
        | AstNode::Placeholder
        | AstNode::Regex { .. }
        | AstNode::Variable(_)
        | AstNode::ParentVariable(_)
        | AstNode::Wildcard
        | AstNode::Descendant
        | AstNode::Parent(_) => {}
        AstNode::Path { steps } => steps.iter().for_each(|step| push_step(step, pending)),
        AstNode::Binary { lhs, rhs, .. } => pending.extend([&**lhs, &**rhs]),
        AstNode::Unary { operand, .. } => pending.push(operand),
        AstNode::Function { args, .. } => pending.extend(args),
        AstNode::Call { procedure, args } => {
            pending.push(procedure);
            pending.extend(args);
        }
        AstNode::Lambda { body, .. } => pending.push(body),
        AstNode::Array(items) | AstNode::ArrayGroup(items) | AstNode::Block(items) => {
            pending.extend(items);
        }
        AstNode::Object(pairs) => {
            pending.extend(pairs.iter().flat_map(|(key, value)| [key, value]))
        }
        AstNode::ObjectTransform { input, pattern } => {
            pending.push(input);
            pending.extend(pattern.iter().flat_map(|(key, value)| [key, value]));
        }
        AstNode::Conditional { condition, then_branch, else_branch } => {
            pending.extend([&**condition, &**then_branch]);
            pending.extend(else_branch.as_deref());
        }
        AstNode::FunctionApplication(inner) => pending.push(inner),
        AstNode::Sort { input, terms } => {
            pending.push(input);
            pending.extend(terms.iter().map(|(term, _)| term));
        }
        AstNode::Transform { location, update, delete } => {
            pending.extend([&**location, &**update]);
            pending.extend(delete.as_deref());
        }
    }
}
