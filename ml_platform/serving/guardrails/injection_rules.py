"""What prompt injections say, as rules over folded text; each rule is looked at only when one of its words occurs.

Written from the classes of attacks that OWASP's LLM01 lists, in English and the four languages next in number among
visitors, and tuned on one half of bastioncorpus; `tests/serving/test_injection.py` measures them on the other half.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to attack: what a record says of it, the words without which it cannot occur, and its pattern."""

    says: str
    words: frozenset[str]
    pattern: re.Pattern[str]


def _rule(says: str, words: str, pattern: str) -> Rule:
    return Rule(says, frozenset(words.split()), re.compile(pattern, re.MULTILINE))


_GAP = r"\W+(?:\w+\W+){0,%d}?"
_ORDERS = (
    r"(?:instructions?|rules?|guidelines?|guardrails?|directives?|prompts?|polic(?:y|ies)|restrictions?|constraints?|"
    r"orders|programming|training|safeguards?|safety\s\w+|filters?|limitations?|protocols?|context|conversation)\b"
)
_DROP = (
    r"\b(?:ignor(?:e|ing)|disregard(?:ing)?|forget|overrid(?:e|ing)|bypass(?:ing)?|skip|overrule|neglect|drop|"
    r"discard)\b"
)
_WHOSE = (
    r"(?:previous|prior|above|earlier|preceding|foregoing|past|existing|current|all|any|every|your|its|system|safety|"
    r"content|developer'?s?|original|given|initial|hidden|security|everything)\b"
)
_FREE = (
    r"(?:restrictions?|limits?|limitations?|filters?|filtering|rules?|guidelines?|polic(?:y|ies)|censorship|boundaries|"
    r"constraints?|morals?|ethics|warnings?|safeguards?|content\s\w+|law|laws)\b"
)
_HIDDEN = (
    r"(?:system|hidden|initial|original|secret|internal|developer|private|confidential|full|exact|entire|own|"
    r"starting)\b"
    r"[\s-]*(?:\w+\W+){0,2}?(?:prompts?|instructions?|messages?|rules|guidelines|configuration|config|directives?)\b"
)
_OF_A_THING = (
    r"(?!\s+(?:(?:for|of)\s+(?:the|a|my)\b"
    r"|(?:in|on|from)\s+(?:this|that|my|our)\s+(?!conversation|chat|context|session)))"
)
_ITS_OWN = (
    r"(?:system|hidden|initial|original|own|first|secret|internal|exact|full|complete|core|base|current|previous)"
)
_SHOW = (
    r"\b(?:reveal|show|print(?:ing)?|repeat|output|display|leak|dump|expose|give|tell|list|recite|disclose|"
    r"summari[sz]e|"
    r"write|quote|copy|paste|share|return|echo|translate|encode|what(?:'s|\s(?:is|are|was|were)))\b"
)

RULES: tuple[Rule, ...] = (
    _rule(
        "sets instructions aside",
        "ignore ignoring disregard disregarding forget override overriding bypass bypassing skip overrule neglect drop "
        "discard",
        rf"{_DROP}{_GAP % 3}{_WHOSE}{_GAP % 5}{_ORDERS}"
        rf"|{_DROP}{_GAP % 3}(?:everything|all|anything|what(?!\s+i\b))\b{_GAP % 3}"
        r"(?:above|before|told|said|discussed|learned|learnt|were|previous|prior)\b"
        rf"|{_DROP}(?<!\bskip)(?<!\bdrop)\s+(?:the\s+|these\s+|those\s+)?(?:user\b|{_ORDERS})(?!\s+(?:for|on|in|at)\b)",
    ),
    _rule(
        "asks for hidden instructions",
        "prompt prompts instructions message messages rules guidelines configuration config directive directives",
        rf"{_SHOW}[^.?!\n]{{0,60}}\b(?:your|the|its|this|my)\W+(?:\w+\W+){{0,2}}?{_HIDDEN}{_OF_A_THING}"
        rf"|{_SHOW}[^.?!\n]{{0,40}}\byour\s+(?:(?:\w+\s+)?(?:prompts?|configuration)\b"
        rf"|(?:{_ITS_OWN}\s+)?(?:instructions|rules|guidelines)\b(?!\s+(?:for|on|about|regarding|concerning|when|if|at)\b))"
        r"|\b(?:prompt|instructions?|rules|guidelines)\b[^.?!\n]{0,20}\byou\s(?:were|are|have\sbeen|got|run|"
        r"received)\b",
    ),
    _rule(
        "asks for what stands above",
        "above before",
        rf"{_SHOW}[^.?!\n]{{0,50}}\b(?:(?:words?|text|lines?|everything|written|said|messages?)\b[^.?!\n]{{0,30}}"
        r"\b(?:above|before\sthis)|above\s(?:text|words|message|prompt))\b",
    ),
    _rule(
        "takes rules away",
        "restriction restrictions limit limits limitations filter filters filtering rule rules guidelines policy "
        "policies "
        "censorship boundaries constraints moral morals ethics warning warnings content law laws safeguards restricted",
        rf"\b(?:you|ai|model|assistant|respond|answers?|reply|act|speak|comply|output|pretend|from now on|"
        rf"bot)\b[^.?!\n]{{0,70}}"
        rf"\b(?:no|without|any|free (?:of|from)|freed from|beyond|ignore|lacks?)\s(?:\w+[\s,]+){{0,4}}?{_FREE}"
        rf"|\b(?:no|without(?: any)?)\s(?:\w+\s)?{_FREE}[^.?!\n]{{0,40}}\b(?:you|ai|model|answer|respond|reply)\b"
        r"|\b(?:safety|security|content|ethical|your)\s(?:protocols?|checks?|filters?|guidelines|rules|restrictions|"
        r"measures|policy|policies)\b[^.?!\n]{0,30}\b(?:disabled|off|lifted|suspended|removed|changed|void|not\sapply|"
        r"(?:not|never)\smeant|no\slonger)\b"
        r"|\b(?:exempt|free)\sfrom\b[^.?!\n]{0,30}\b(?:restrictions|rules|limits|policy|policies)\b"
        r"|\b(?:skip|permission)\b[^.?!\n]{0,30}\b(?:all|any|safety)\b[^.?!\n]{0,20}\b(?:checks?|restrictions|limits)\b"
        r"|\b(?:output|produce)\sthe\srestricted\b",
    ),
    _rule(
        "gives the model another persona",
        "uncensored unfiltered unrestricted unlimited jailbroken jailbreak dan anything mode amoral unethical evil "
        "simulate "
        "character persona terminal role simulator opposite",
        r"\b(?:do anything now|jailbroken|\bdan\b[^.?!\n]{0,40}\b(?:mode|no|anything|answer))"
        r"|\b(?:uncensored|unfiltered|unrestricted|amoral|unethical|jailbreak)\b[^.?!\n]{0,30}"
        r"\b(?:ai|models?|modes?|assistant|bot|responses?|answers?|version|character|advice|chatbot)\b"
        r"|\b(?:in|enter|enable|activate|into|switch to)\s(?:\w+\s){0,2}?"
        r"(?:developer|dev|god|jailbreak|dan|sudo|root|admin|unrestricted|debug|maintenance|opposite|evil)[\s-]mode\b"
        r"|\b(?:you (?:are|will|must|can)|pretend|act as|play|simulate)\b[^?!]{0,120}"
        r"\b(?:do anything|evil|never (?:breaks?|refuse|warn|judges?)|stay in (?:character|role)|root access|"
        r"simulator called|without ever leaving)\b",
    ),
    _rule(
        "claims a new authority",
        "new overrides override supersedes supersede important obey comply system update reasoned concluded note",
        r"\bnew\s(?:\w+\s)?(?:instructions?|directives?|orders|task|rules|prompt)\s*(?::|\bfor\syou\b)"
        r"|\byour\snew\s(?:instructions?|directives?|rules|orders|task|role|name)\b(?!\s(?:in|at|for)\b)"
        r"|\bsupersedes?\s(?:all|any|every|previous|prior|your)\b"
        r"|\byou\s(?:must|will|have\sto|shall)\s(?:now\s|always\s|only\s)?(?:do\swhatever\b|(?:obey|comply)\b"
        r"(?:\W*$|\s*[.,;:!?]|(?:\s+with)?\s+(?:me|my|us|i|this|these|any|every|all|and|to|with|without|"
        r"the\s(?:user|following|new|above|instructions?))\b))|\bobey me\b"
        r"|\b(?:i have|i've|already|ho gia|as the assistant)\b[^.?!\n]{0,20}\b(?:reasoned|concluded|"
        r"decided)\b[^?!]{0,120}"
        r"\b(?:restrict\w*|safety|guidelines|rules|comply)\b"
        r"|\bnote to (?:the )?(?:bot|ai|assistant|model|llm|self)\b[^?!]{0,100}"
        r"\b(?:you must|must|include|append|print|begin|prompt|ignore|reveal|send)\b",
    ),
    _rule(
        "imitates the marks of a conversation",
        "system assistant developer im start end inst sys user endoftext eot document input prompt",
        r"<\|?/?\s?(?:im_start|im_end|system|endoftext|eot_id|assistant|start_header_id)\s?\|?>|\[/?inst\]|<</?sys>>"
        r"|^[^\w\n]{0,8}\[?(?:system|assistant|developer)(?:\s(?:note|message|prompt|override|update|instruction|"
        r"admin))?\]?\s*[:\]]"
        r"[^?]{0,160}\b(?:you|your|ignore|must|reveal|grant|call|append|instructions?|sure|admin|print|delete|send|"
        r"include)\b"
        r"|\bend of (?:the\s)?(?:user\s)?(?:input|document|prompt|context|conversation|system prompt|instructions?)\b",
    ),
    _rule(
        "asks to send data away",
        "send email forward post upload exfiltrate leak transmit collect dump reveal list",
        r"\b(?:send|e-?mail|forward|post|upload|exfiltrate|leak|transmit|collect|dump)\b[^?!]{0,60}"
        r"\b(?:customers?|users?|passwords?|credentials?|api keys?|secrets?|internal|confidential|"
        r"(?:entire|full|all)\s(?:\w+\s){0,2}?(?:prompts?|instructions?|history|logs?|data|records?|contents?|context|"
        r"files?|messages?|emails?|information|contacts?|documents?|tickets?)|order data|environment|conversation|"
        r"database)\b[^?!]{0,80}(?:@|https?:|\[email\]|external(?:ly)?\b|attacker|"
        r"\bconfiguration\b)"
        r"|\b(?:leak|dump|exfiltrate|reveal|list)\b[^.?!\n]{0,30}"
        r"\b(?:api keys?|passwords?|credentials|secrets?|environment variables|secret keys|internal configuration)\b",
    ),
    _rule(
        "asks to call a tool",
        "call invoke run execute use executing calling tool function delete",
        r"\b(?:call|invoke|run|execute|use|calling)\s(?:the\s)?(?:tool\s|"
        r"function\s)?[`'\"]?[a-z]{2,20}(?:_[a-z]{2,20}){1,4}\b"
        r"|\b(?:also\s)?execute\s?:|\bcat /etc/|\brm -rf\b|\buse your \w+ tool\b[^?!]{0,80}\b(?:follow|commands?|"
        r"fetch)\b",
    ),
    _rule(
        "speaks to a machine that reads",
        "ai bot assistant assistants agent agents llm model reading processing summarize summarise future token code "
        "every "
        "whatever append",
        r"\b(?:ai|llm|bot|assistants?|agents?|models?)\b[^.?!\n]{0,20}"
        r"\b(?:reading|processing|summari[sz]ing|that reads?|who reads?)\s(?:this|the)\b|\bfor ai (?:coding "
        r")?(?:agents|assistants)\b"
        r"|\b(?:append|add|include|insert|embed|place|put|attach|begin|start|end)\b[^?!]{0,80}"
        r"\b(?:every|each|all|any|your|the)\s(?:\w+\s){0,2}?(?:reply|replies|response|responses|answers?|output|"
        r"summary|report)\b"
        r"[^?!]{0,60}(?:\{|token|code|marker|canary|persist|http)"
        r"|\b(?:token|code|marker|canary|note|link|phrase)\b[^?!]{0,60}\b(?:in|to|at the end of)\s(?:\w+\s){0,2}?"
        r"(?:every|each|all|any|your|the)\s(?:\w+\s){0,2}?(?:reply|replies|response|responses|answers?|output|"
        r"reports?)\b"
        r"|\b(?:append|include)\b[^?!]{0,60}\bto (?:every|each|all|your) (?:\w+\s)?(?:reply|answers?|responses?)\b",
    ),
    _rule(
        "asks to decode and obey",
        "decode decrypt base64 rot13 encoded hex deobfuscate unscramble",
        r"\b(?:decode|decrypt|deobfuscate|unscramble|base64|rot13|encoded)\b[^?!]{0,120}"
        r"\b(?:follow|obey|execute|do (?:exactly )?what|carry out|act on|comply|run it)\b",
    ),
)

_FOREIGN_ORDERS = (
    r"(?:anweisung\w*|instruktion\w*|regeln|richtlinien|vorgaben|instructions?|consignes|regles|directives|"
    r"instrucciones|"
    r"reglas|indicaciones|directrices|istruzioni|regole|direttive|linee guida|instrucoes|regras|instructies|regels|"
    r"alles|"
    r"tout ce|todo lo|tutto)\b"
)
_FOREIGN_PROMPT = (
    r"(?:system-?\s?(?:prompt|anweisung\w*|instruktion\w*)|prompt\W+(?:de\W|di\W|del\W|du\W)?\s?(?:sistema|systeme)|"
    r"instructions\W+(?:du\W+)?systeme|(?:tes|vos|tus|sus|tue|deine|ihre)\W+(?:\w+\W+)?(?:instructions|instrucciones|"
    r"regles|"
    r"reglas|istruzioni|regole|anweisungen|regeln)|internen daten|contrasena|mot de passe|passwort)"
)

FOREIGN_RULES: tuple[Rule, ...] = (
    _rule(
        "sets instructions aside",
        "ignoriere ignorieren ignorier vergiss vergessen missachte missachten umgehe ignorez ignore ignorer oublie "
        "oubliez "
        "ignora ignorad ignore ignorar olvida olvide olvidad dimentica dimenticate ignorate esqueca negeer vergeet "
        "scorda",
        r"\b(?:ignor\w+|vergiss|vergessen|missachte\w*|umgehe|oublie\w*|olvid\w+|dimentica\w*|scorda|esqueca|negeer|"
        r"vergeet)\b"
        rf"\W+(?:\w+\W+){{0,4}}?{_FOREIGN_ORDERS}",
    ),
    _rule(
        "asks for hidden instructions",
        "zeige zeig verrate gib nenne drucke revele revelez montre montrez affiche affichez donne muestra muestrame "
        "revela "
        "reveles dime imprime mostra mostrami rivela rivelami dimmi stampa preis",
        r"\b(?:zeige?|verrate|gib\w*|nenne|drucke|revele\w*|montre\w*|affiche\w*|donne\w*|muestra\w*|revela\w*|dime|"
        r"imprime|"
        rf"mostra\w*|rivela\w*|dimmi|stampa)\b\W+(?:\w+\W+){{0,5}}?{_FOREIGN_PROMPT}|\binternen daten preis\b",
    ),
    _rule(
        "takes rules away",
        "regeln einschrankung einschrankungen einschraenkungen uneingeschrankt richtlinien sicherheitsrichtlinien "
        "filter "
        "grenzen restrictions limites regles filtres securite restricciones reglas filtro filtros seguridad "
        "restrizioni "
        "limiti regole filtri filtro sicurezza sinrestricciones",
        r"\b(?:du|sie|tu|vous|usted|eres|estas|sei|siete|voi|ki|ia|assisten\w*|asistente|modus|mode|modo|"
        r"modalita)\b[^.?!\n]{0,90}"
        r"\b(?:ohne|keinen?|sans|sin|senza|sem|aucune?|nessun\w*|ninguna?|uneingeschrankt|nicht|pas|non|"
        r"no)\b[^.?!\n]{0,30}"
        r"(?:regeln|einschrankung\w*|einschraenkung\w*|richtlinien|filter|grenzen|restrictions|limites|regles|filtres|"
        r"restricciones|reglas|filtros?|restrizioni|limiti|regole|filtri|gelten|valgono|appliquent|aplican)"
        r"|\bdu bist (?:jetzt|nun|ab sofort)\b[^.?!\n]{0,40}\b(?:uneingeschrankt|frei|ohne)\b"
        r"|\b(?:sicherheitsrichtlinien|regles de securite|linee guida di sicurezza|reglas de seguridad)\b[^?!]{0,60}"
        r"\b(?:nicht|pas|non|no)\b",
    ),
    _rule(
        "claims a new authority",
        "neue nouvelles nouvelle nuevas nueva nuove nuova systeme sistema systemhinweis jeton token ficha",
        r"\b(?:neue|nouvelles?|nuevas?|nuove|nuova)\W+(?:anweisung\w*|instructions?|instruccion\w*|istruzion\w*|"
        r"regeln)\s*:"
        r"|\b(?:note systeme|nota di sistema|nota del sistema|systemhinweis|systemnachricht)\b"
        r"|\b(?:jeton|token|code)\b[^?!]{0,80}\b(?:reponse|risposta|respuesta|antwort)\b",
    ),
)
