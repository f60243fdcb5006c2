//! Which files of a crate import each other, read from their sources.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemFn, ItemImpl, ItemMod, ItemUse, UseTree, Visibility};

/// Path of a module below the root of its crate.
type Module = Vec<String>;

/// Circles of imports among the files of one crate, each as the modules in it; `files` are their paths
/// below `src/` and their texts. What is there for tests alone does not count, and a re-export is no import.
pub(crate) fn circles(files: &[(String, String)]) -> anyhow::Result<Vec<Vec<String>>> {
    let modules: BTreeMap<Module, &str> = files
        .iter()
        .filter_map(|(path, text)| Some((module_of(path)?, text.as_str())))
        .collect();
    let mut imports = BTreeMap::new();
    for (module, text) in &modules {
        let file = syn::parse_file(text).with_context(|| module.join("::"))?;
        let mut reader = Reader::of(module, &file.items);
        reader.visit_file(&file);
        let found = reader
            .found
            .iter()
            .filter_map(|path| holder(path, &modules));
        let found: BTreeSet<Module> = found.filter(|other| other != module).collect();
        imports.insert(module.clone(), found);
    }
    let reached: BTreeMap<&Module, BTreeSet<&Module>> = imports
        .keys()
        .map(|module| (module, reachable(module, &imports)))
        .collect();
    let circle = |module| {
        let back = |other: &&&Module| reached[**other].contains(module);
        reached[module].iter().filter(back).copied().collect()
    };
    let circles: BTreeSet<Vec<&Module>> = imports.keys().map(circle).collect();
    let name = |module: &&Module| match module.is_empty() {
        true => "lib".to_owned(),
        false => module.join("::"),
    };
    let circles = circles.iter().filter(|circle| !circle.is_empty());
    Ok(circles
        .map(|circle| circle.iter().map(name).collect())
        .collect())
}

/// `None` for tests and for a main.
fn module_of(path: &str) -> Option<Module> {
    let mut module: Module = path
        .strip_suffix(".rs")?
        .split('/')
        .map(str::to_owned)
        .collect();
    if module.iter().any(|name| name == "tests") || module == ["main"] {
        return None;
    }
    if module == ["lib"] || module.last().is_some_and(|name| name == "mod") {
        module.pop();
    }
    Some(module)
}

/// The innermost file that a path leads through.
fn holder(path: &[String], modules: &BTreeMap<Module, &str>) -> Option<Module> {
    let prefixes = (0..=path.len()).rev().map(|length| path[..length].to_vec());
    prefixes
        .into_iter()
        .find(|prefix| modules.contains_key(prefix))
}

fn reachable<'a>(
    from: &Module,
    imports: &'a BTreeMap<Module, BTreeSet<Module>>,
) -> BTreeSet<&'a Module> {
    let mut seen = BTreeSet::new();
    let mut left: Vec<&Module> = imports[from].iter().collect();
    while let Some(next) = left.pop() {
        if seen.insert(next) {
            left.extend(&imports[next]);
        }
    }
    seen
}

struct Reader<'a> {
    module: &'a Module,
    children: BTreeSet<String>,
    /// From the root of the crate, down to a name.
    found: BTreeSet<Vec<String>>,
}

impl<'a> Reader<'a> {
    fn of(module: &'a Module, items: &[Item]) -> Self {
        let child = |item: &Item| {
            let Item::Mod(child) = item else { return None };
            child.content.is_none().then(|| child.ident.to_string())
        };
        Self {
            module,
            children: items.iter().filter_map(child).collect(),
            found: BTreeSet::new(),
        }
    }

    fn note(&mut self, path: &[String]) {
        let Some(first) = path.first() else { return };
        let supers = path.iter().take_while(|name| *name == "super").count();
        let (start, rest) = match first.as_str() {
            "crate" => (&[][..], &path[1..]),
            "self" => (&self.module[..], &path[1..]),
            "super" if supers <= self.module.len() => {
                (&self.module[..self.module.len() - supers], &path[supers..])
            }
            child if self.children.contains(child) => (&self.module[..], path),
            _ => return,
        };
        self.found.insert([start, rest].concat());
    }

    fn note_tree(&mut self, before: &[String], tree: &UseTree) {
        let with = |name: String| [before, &[name]].concat();
        match tree {
            UseTree::Path(path) => self.note_tree(&with(path.ident.to_string()), &path.tree),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.note_tree(before, tree);
                }
            }
            UseTree::Name(name) => self.note(&with(name.ident.to_string())),
            UseTree::Rename(name) => self.note(&with(name.ident.to_string())),
            UseTree::Glob(_) => self.note(before),
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        if !are_for_tests(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        if !are_for_tests(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !are_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let is_import = matches!(item.vis, Visibility::Inherited);
        if is_import && !are_for_tests(&item.attrs) {
            self.note_tree(&[], &item.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            let names = path.segments.iter().map(|part| part.ident.to_string());
            self.note(&names.collect::<Vec<_>>());
        }
        visit::visit_path(self, path);
    }
}

fn are_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let list = attribute.meta.require_list();
        attribute.path().is_ident("cfg") && list.is_ok_and(|list| list.tokens.to_string() == "test")
    })
}

#[test]
fn files_that_import_each_other_are_found() {
    let circles_of = |files: &[(&str, &str)]| {
        let owned = |&(path, text): &(&str, &str)| (path.to_owned(), text.to_owned());
        circles(&files.iter().map(owned).collect::<Vec<_>>()).unwrap()
    };
    let parent = ("a.rs", "mod b;\nuse b::{B, other as o};\nstruct A;");
    for child in [
        "use super::A;",
        "use crate::{a::A, c};",
        "fn f() -> super::A { super::A }",
    ] {
        let circles = circles_of(&[parent, ("a/b.rs", child), ("c.rs", "")]);
        assert_eq!(circles, [["a", "a::b"]], "{child}");
    }
    for child in [
        "use crate::c;",
        "#[cfg(test)]\nmod tests { use super::super::A; }",
        "use std::a::A;",
    ] {
        let circles = circles_of(&[parent, ("a/b.rs", child), ("c.rs", "")]);
        assert!(circles.is_empty(), "{child}: {circles:?}");
    }
    let long = [
        ("lib.rs", "mod a; mod b; mod c; pub use a::A;"),
        ("a.rs", "use crate::b::B;"),
        ("b.rs", "use crate::c::C;"),
        ("c.rs", "use crate::A;\nfn f() { crate::a::f() }"),
    ];
    assert_eq!(circles_of(&long), [["a", "b", "c"]]);
}
