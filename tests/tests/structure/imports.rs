//! Which files of a crate import which.
//!
//! A file may use items of the modules that it is inside of: those are not counted. Unit tests are not counted either.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::Path;

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, Macro, Meta, UseTree};

/// The names of a module from the root of its crate on.
type Module = Vec<String>;

/// For each file of a crate, by its module, the files that it imports.
pub(crate) struct Imports(BTreeMap<Module, BTreeSet<Module>>);

impl Imports {
    /// The imports of the crate whose root is in this folder.
    pub(crate) fn of(root: &Path) -> Self {
        let files = crate::rust_files(root).into_iter().filter(|path| !path.starts_with(root.join("bin")));
        let text = |path: &Path| fs::read_to_string(path).unwrap();
        let files: Vec<_> =
            files.map(|path| (module(path.strip_prefix(root).unwrap()), text(&path))).collect();
        Self::read(&files)
    }

    /// The imports of files, from their texts. The library and the program of a crate are one module.
    pub(crate) fn read(files: &[(Module, String)]) -> Self {
        let modules: BTreeSet<_> = files.iter().map(|(module, _)| module).collect();
        let mut imports = BTreeMap::<Module, BTreeSet<Module>>::new();
        for (module, text) in files {
            let paths = Reader::paths_in(module, text).into_iter();
            let imported = paths.map(|path| longest_module(path, &modules));
            let others = imported.filter(|imported| !module.starts_with(imported));
            imports.entry(module.clone()).or_default().extend(others);
        }
        Self(imports)
    }

    /// One circle for each set of files that import each other, as text.
    pub(crate) fn circles(&self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let mut circles = Vec::new();
        for module in self.0.keys() {
            if let Some(circle) = self.shortest_way_back(module).filter(|_| !seen.contains(module)) {
                let names: Vec<_> = circle.iter().map(|module| module.join("::")).collect();
                circles.push(names.join(" -> "));
                seen.extend(circle);
            }
        }
        circles
    }

    /// The shortest way from a module over its imports back to itself.
    fn shortest_way_back(&self, module: &Module) -> Option<Vec<Module>> {
        let mut ways = VecDeque::from([vec![module.clone()]]);
        let mut reached = BTreeSet::new();
        while let Some(way) = ways.pop_front() {
            for next in way.last().and_then(|last| self.0.get(last))? {
                let longer = [&way[..], std::slice::from_ref(next)].concat();
                if next == module {
                    return Some(longer);
                }
                if reached.insert(next.clone()) {
                    ways.push_back(longer);
                }
            }
        }
        None
    }
}

/// The module that a file holds, by its path from the root of the crate.
pub(crate) fn module(path: &Path) -> Module {
    let path = path.with_extension("");
    let names = path.iter().map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| !["lib", "main"].contains(&name.as_str())).collect()
}

/// The module that a path leads into.
fn longest_module(mut path: Module, modules: &BTreeSet<&Module>) -> Module {
    while !path.is_empty() && !modules.contains(&path) {
        path.pop();
    }
    path
}

/// Collects the paths in a file.
struct Reader {
    /// The module that is read, perhaps one inside the file.
    place: Module,
    /// The names that `use` and `mod` bind, with their paths.
    bound: BTreeMap<String, Module>,
    paths: Vec<Module>,
}

impl Reader {
    /// All paths in a file, from the root of the crate on. Paths into other crates are left out.
    fn paths_in(module: &Module, text: &str) -> Vec<Module> {
        let mut reader = Self { place: module.clone(), bound: BTreeMap::new(), paths: Vec::new() };
        reader.visit_file(&syn::parse_file(text).unwrap());
        let absolute = |path: Module| match reader.bound.get(&path[0]) {
            Some(start) => [&start[..], &path[1..]].concat(),
            None => path,
        };
        let paths = reader.paths.into_iter().map(absolute);
        paths.filter(|path| path[0] == "crate").map(|path| path[1..].to_vec()).collect()
    }

    fn add(&mut self, path: Module) -> Module {
        let path = self.resolve(path);
        self.paths.push(path.clone());
        path
    }

    /// Resolves `self` and `super`.
    fn resolve(&self, path: Module) -> Module {
        let relative = path.iter().take_while(|name| ["self", "super"].contains(&name.as_str())).count();
        if relative == 0 {
            return path;
        }
        let up = path[..relative].iter().filter(|name| *name == "super").count();
        let start = &self.place[..self.place.len().saturating_sub(up)];
        [&["crate".to_owned()][..], start, &path[relative..]].concat()
    }

    fn add_tree(&mut self, mut path: Module, tree: &UseTree) {
        match tree {
            UseTree::Path(next) => {
                path.push(next.ident.to_string());
                self.add_tree(path, &next.tree);
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_tree(path.clone(), tree)),
            UseTree::Glob(_) => drop(self.add(path)),
            UseTree::Name(name) if name.ident == "self" => self.bind(path.last().cloned(), path),
            UseTree::Name(name) => {
                path.push(name.ident.to_string());
                self.bind(Some(name.ident.to_string()), path);
            }
            UseTree::Rename(rename) => {
                path.push(rename.ident.to_string());
                self.bind(Some(rename.rename.to_string()), path);
            }
        }
    }

    fn bind(&mut self, name: Option<String>, path: Module) {
        let path = self.add(path);
        self.bound.extend(name.map(|name| (name, path)));
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        if !matches!(item, Item::Mod(module) if module.attrs.iter().any(is_for_tests)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        let name = module.ident.to_string();
        self.place.push(name.clone());
        if module.content.is_none() {
            let path = [&["crate".to_owned()][..], &self.place].concat();
            self.bound.insert(name, path);
        }
        visit::visit_item_mod(self, module);
        self.place.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.add_tree(Vec::new(), &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.add(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    /// The arguments of a macro are not parsed: whatever looks like a path in them counts.
    fn visit_macro(&mut self, call: &'ast Macro) {
        let text = call.tokens.to_string().replace(" :: ", "::").replace(":: ", "::");
        for path in text.split(|c: char| !(c.is_alphanumeric() || "_:".contains(c))) {
            if path.contains("::") && !path.starts_with(':') {
                self.add(path.split("::").map(str::to_owned).collect());
            }
        }
    }
}

fn is_for_tests(attribute: &Attribute) -> bool {
    let is_test = |meta: &Meta| matches!(meta, Meta::List(list) if list.tokens.to_string() == "test");
    attribute.path().is_ident("cfg") && is_test(&attribute.meta)
}
